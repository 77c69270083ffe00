"""Decodes compressed images in a process of its own: ``python -m pipeline.decoder``, started by pipeline.decoding.

A decoder that aborts, hangs or eats memory ends this process only; whatever it prints goes nowhere.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

from pipeline.decoding import LIMIT_S, decode_compressed, describe, send

MEMORY_BYTES = 8 << 30
"""Address space that the process may have."""
CPU_S = 20 * int(LIMIT_S)
"""Computing time after which the system ends it, whoever started it."""


def main() -> None:
    """Answer one line of JSON after the other, until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "wb") as answers:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)  # what decoders print must not get between the answers
        for line in sys.stdin:
            asked = json.loads(line)
            try:
                images = decode_compressed(Path(asked["path"]), asked["indices"])
            except BaseException as error:  # a Rust decoder's panic is not an Exception
                answers.write(json.dumps({"error": describe(error)}).encode() + b"\n")
                answers.flush()
                continue
            send(images, answers)


if __name__ == "__main__":
    main()
