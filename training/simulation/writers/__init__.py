"""How does a simulated study leave? As DICOM like each vendor's, as NIfTI, as plain arrays, with its truth."""

from .identity import Patient, StudyIdentity
from .vendors import write_dicom

__all__ = ["Patient", "StudyIdentity", "write_dicom"]
