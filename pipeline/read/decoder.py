"""Decodes compressed images in a process of its own, which :mod:`pipeline.read.decoding` starts.

A decoder that aborts, hangs or eats memory ends this process only; what it prints is discarded. The process gets the
content of the files, not their names; it has no environment of the node's, and opens no file and no connection.
"""

from __future__ import annotations

import codecs
import importlib
import json
import os
import sys
from contextlib import suppress
from io import BytesIO

from pydicom import charset

from .decoding import LIMIT_S, decode_compressed, describe, send
from .sandbox import confine

CPU_S = 20 * int(LIMIT_S)
"""Processor time after which the system ends the process, even if the node no longer runs."""
_LOADED_WHEN_USED = (
    "jpeg_ls",
    "libjpeg.utils",
    "openjpeg.utils",
    "pydicom.pixels.decoders.gdcm",
    "pydicom.pixels.decoders.pillow",
    "pydicom.pixels.decoders.pyjpegls",
    "pydicom.pixels.decoders.pylibjpeg",
    "pydicom.pixels.decoders.rle",
    "pylibjpeg.utils",
    "rle.utils",
)


def main() -> None:
    """Answer one question after the other: a line of JSON and the content of a file, until there are no more."""
    with os.fdopen(os.dup(1), "wb") as answers:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)  # what decoders print must not get between the answers
        _load()
        confined = confine(CPU_S)
        while line := sys.stdin.buffer.readline():
            question = json.loads(line)
            content = sys.stdin.buffer.read(question["size"])
            try:
                images = decode_compressed(BytesIO(content), question["indices"])
            except BaseException as error:  # a Rust decoder's panic is not an Exception
                answers.write(json.dumps({"error": describe(error), "confined": confined}).encode() + b"\n")
                answers.flush()
                continue
            send(images, confined, answers)


def _load() -> None:
    """Load now what Python would load at its first use, when no file can be opened any more."""
    for module in _LOADED_WHEN_USED:
        with suppress(ImportError):
            importlib.import_module(module)
    for encoding in charset.python_encoding.values():
        codecs.lookup(encoding)


if __name__ == "__main__":
    main()
