"""How does a simulated study leave? As DICOM the way each vendor writes it, as NIfTI, or as plain arrays, with its truth."""

from training.simulation.writers.identity import Patient, StudyIdentity
from training.simulation.writers.vendors import write_dicom

__all__ = ["Patient", "StudyIdentity", "write_dicom"]
