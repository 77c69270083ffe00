"""Install the viewers that the tests here open results in: ``python -m tests.viewers.packages FOLDER``.

npm packages at fixed versions, outside the source tree; what is there already is not installed again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

OHIF = "3.13.2"
CORNERSTONE = "5.14.0"
ADAPTERS = [
    *(f"@cornerstonejs/{name}@{CORNERSTONE}" for name in ("adapters", "core", "metadata", "tools")),
    "dcmjs@0.52.0",
    "@babel/runtime@8.1.3",
    "@kitware/vtk.js@37.4.3",
    "comlink@4.4.2",
    "loglevel@1.9.2",
]


def install(folder: Path) -> None:
    """Install the built OHIF viewer into ``ohif`` and Cornerstone's adapters into ``adapters``."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "ohif" / OHIF).is_dir():
        (packed,) = json.loads(_npm("pack", "--json", "--silent", f"@ohif/app@{OHIF}", folder=folder))
        with tarfile.open(folder / packed["filename"]) as archive:
            archive.extractall(folder / "ohif" / "part", filter="data")
        (folder / "ohif" / "part" / "package" / "dist").rename(folder / "ohif" / OHIF)
        shutil.rmtree(folder / "ohif" / "part")
        (folder / packed["filename"]).unlink()
    adapters = folder / "adapters"
    if not (adapters / "node_modules" / "@cornerstonejs" / "adapters").is_dir():
        adapters.mkdir(exist_ok=True)
        (adapters / "package.json").write_text('{"private": true}\n')
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--legacy-peer-deps", "--silent")
        _npm("install", *options, *ADAPTERS, folder=adapters)


def _npm(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["npm", *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    install(Path(sys.argv[1]).resolve())
