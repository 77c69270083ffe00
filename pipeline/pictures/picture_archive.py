"""How are many small pictures kept in one file? In a ZIP archive, with an index in JSON.

The pictures are compressed already, so they are stored as they are: each can be read without the others.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Self

from pipeline.errors import InputError

CROPS: Final = "crops.zip"
"""Each microbleed up close, in three planes; kept as long as the findings."""
SLICES: Final = "slices.zip"
"""All slices; deleted with the images."""
VOLUMES: Final = "volumes.zip"
"""The volumes for the viewer; deleted with the images."""

_INDEX: Final = "index.json"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first a ZIP knows: the same pictures make the same bytes


def write_picture_archive(index: Mapping[str, Any], pictures: Mapping[str, bytes]) -> bytes:
    """Make a file of pictures by name, with an index of JSON types."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_INDEX, _EPOCH), json.dumps(index))
        for name, content in pictures.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return file.getvalue()


class PictureArchive:
    """A file of pictures, open for reading.

    Attributes
    ----------
    index : dict
        Facts about the pictures.

    Raises
    ------
    InputError
        If the file is missing or incomplete.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError("no pictures are kept there", where=path.name) from error
        try:
            self.index: dict[str, Any] = json.loads(self._archive.read(_INDEX))
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            self._archive.close()
            raise InputError("the pictures cannot be read", where=path.name) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def picture(self, name: str) -> bytes | None:
        """The file of that name; ``None`` if there is none."""
        try:
            return self._archive.read(name)
        except KeyError:
            return None
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError("the picture cannot be read", where=name) from error
