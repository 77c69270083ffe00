"""Whose head is it? Labelled anatomies, the ICBM152 template or a folder of heads, as tissue maps in MNI space."""

from .loading import list_anatomies, load_anatomy
from .tissue_maps import Anatomy, AnatomyRef

__all__ = ["Anatomy", "AnatomyRef", "list_anatomies", "load_anatomy"]
