"""Whose head is it? Labelled anatomies, the ICBM152 template or a folder of heads, as tissue maps in MNI space."""

from training.simulation.anatomy.folder import anatomies_in_folder
from training.simulation.anatomy.icbm import icbm_anatomy
from training.simulation.anatomy.source import Anatomy, AnatomyRef, list_anatomies, load_anatomy

__all__ = ["Anatomy", "AnatomyRef", "anatomies_in_folder", "icbm_anatomy", "list_anatomies", "load_anatomy"]
