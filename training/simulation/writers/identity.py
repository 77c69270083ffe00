"""Whose study is it? A patient who does not exist, and UIDs that follow from the seed."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.uids import derive_uid

SIMULATED = "SIMULATED IMAGE - no patient. Research use only."


@dataclass(frozen=True)
class Patient:
    """A fictitious patient."""

    name: str = "Simulated^Patient"
    id: str = "SIM-0000"
    birth_date: str = "19520101"
    sex: str = "O"
    age: str = "070Y"


@dataclass(frozen=True)
class StudyIdentity:
    """What all objects of one study share.

    Parameters
    ----------
    key : str
        Names the study; its UIDs derive from it.
    patient : Patient
        Who.
    date, time : str
        DICOM DA and TM.
    description : str
        Study description.
    accession : str
        Accession number.
    """

    key: str
    patient: Patient = Patient()
    date: str = "20250102"
    time: str = "101500"
    description: str = "MR BRAIN (SIMULATED)"
    accession: str = ""

    def uid(self, *names: object) -> str:
        """UID of something in this study."""
        return derive_uid(self.key, *names)
