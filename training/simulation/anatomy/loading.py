"""Which heads are there, and what is in one of them? The ICBM152 template, or a folder of labelled heads."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from .folder import anatomies_in_folder, folder_anatomy
from .icbm import icbm_anatomy
from .tissue_maps import Anatomy, AnatomyRef


def list_anatomies(folder: Path | None, scheme: str | None = None) -> tuple[AnatomyRef, ...]:
    """The heads of `folder`, sorted by name; the ICBM152 template when it is ``None``.

    Raises
    ------
    InputError
        If the folder is missing or holds no labelled head, or the scheme is unknown.
    """
    return (AnatomyRef("icbm152"),) if folder is None else anatomies_in_folder(folder, scheme)


@lru_cache(maxsize=1)
def load_anatomy(ref: AnatomyRef) -> Anatomy:
    """Read the head that `ref` names; the last one is kept, as one head is used for several studies."""
    return icbm_anatomy() if ref.folder is None else folder_anatomy(ref)
