"""A study with an SWI, and a rule table that has it analysed."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from node.settings import DicomDestination
from tests.dicom_factory import Patient, classic, siemens_swi

PACS = {name: DicomDestination(ae_title=name.upper(), host="127.0.0.1", port=104) for name in ("pacs", "research")}
SWI = np.full((9, 8, 8), 300, dtype=np.uint16)
PROFILE = """
description = "for these tests"
[candidates]
method = "kmeans"
[rating]
offset = 0.0
weights = { response = 0.1 }
[thresholds]
possible = 0.3
definite = 0.6
"""
IGNORE_REST = '[[rule]]\nname = "rest"\naction = "ignore"\n'


def swi_study(patient: Patient | None = None) -> list[Dataset]:
    """Magnitude 8, phase 9, mIP 10 and SWI 11 of a Siemens protocol, and a T1 as series 2."""
    patient = patient or Patient()
    images = siemens_swi(SWI, np.zeros(SWI.shape), SWI, patient=patient)
    t1 = {"SequenceName": "*tfl3d1_16ns", "ScanningSequence": ["GR", "IR"], "EchoTime": 2.5}
    kind = ("ORIGINAL", "PRIMARY", "M", "ND", "NORM")
    return [*images, *classic(SWI, patient=patient, series_number=2, description="t1_mprage", image_type=kind, tags=t1)]


def swi_rule(more: str = "") -> str:
    return f'[[rule]]\nname = "swi"\nrole = "swi"\naction = "analyse"\nprofile = "@quick"\n{more}\n{IGNORE_REST}'
