"""Which codes say what a microbleed is, how sure it is, and where it lies?

Terms come from DICOM PS3.16 (DCM), SNOMED CT (SCT), UCUM and UMLS. No DICOM context group has a term for a cerebral
microbleed; the closest is *Hemorrhage* (CID 7151), and the tracking identifier says the rest in words.
"""

from __future__ import annotations

from typing import Final

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pipeline.findings import Certainty, Lesion

MORPHOLOGICALLY_ABNORMAL: Final = Code("49755003", "SCT", "Morphologically Abnormal Structure")  # CID 7150
HEMORRHAGE: Final = Code("50960005", "SCT", "Hemorrhage")  # CID 7151
BRAIN: Final = Code("12738006", "SCT", "Brain")

# CID 100; "MR head" (LOINC 24590-2) is no member of it.
PROCEDURE_REPORTED: Final = Code("25056-3", "LN", "MRI unspecified body region")
# IHE Radiology, AI Results (AIR): purpose of the one Contributing Equipment item.
PROCESSING_ALGORITHM: Final = Code("Newcode1", "99IHE", "Processing Algorithm")

NUMBER_OF_LESIONS: Final = Code("246206008", "SCT", "Number of lesions")
DIAMETER: Final = Code("81827009", "SCT", "Diameter")  # CID 7470
VOLUME: Final = Code("118565006", "SCT", "Volume")  # CID 7472
PROBABILITY: Final = Code("122157", "DCM", "Probability")
CERTAINTY_OF_FINDING: Final = Code("111012", "DCM", "Certainty of Finding")
CERTAINTY: Final[dict[Certainty, Code]] = {
    Certainty.DEFINITE: Code("255545003", "SCT", "Definite"),
    Certainty.POSSIBLE: Code("371930009", "SCT", "Possible"),
}
MILLIMETRE: Final = codes.UCUM.Millimeter
CUBIC_MILLIMETRE: Final = codes.UCUM.CubicMillimeter
PERCENT: Final = codes.UCUM.Percent
COUNT: Final = codes.UCUM.NoUnits

QUALITATIVE_EVALUATIONS: Final = Code("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500, row 12
SUMMARY: Final = Code("121111", "DCM", "Summary")
COMMENT: Final = Code("121106", "DCM", "Comment")
SOURCE: Final = Code("260753009", "SCT", "Source")
SOURCE_IMAGE: Final = Code("121322", "DCM", "Source image for image processing operation")  # CID 7202

# CID 7162. Without trained weights the detector is image processing on voxel neighbourhoods.
LEARNED: Final = Code("123110", "DCM", "Artificial Intelligence")
CLASSICAL: Final = Code("123101", "DCM", "Neighborhood Analysis")

# MARS (Gregoire 2009); the keys are the words of `findings.json`.
LOCATIONS: Final[dict[str, Code]] = {
    "frontal": Code("83251001", "SCT", "Frontal lobe"),
    "parietal": Code("16630005", "SCT", "Parietal lobe"),
    "temporal": Code("78277001", "SCT", "Temporal lobe"),
    "occipital": Code("31065004", "SCT", "Occipital lobe"),
    "insula": Code("36169008", "SCT", "Insula"),
    "basal ganglia": Code("C0004781", "UMLS", "Basal Ganglia"),
    "thalamus": Code("42695009", "SCT", "Thalamus"),
    "internal capsule": Code("85637007", "SCT", "internal capsule"),
    "external capsule": Code("10517005", "SCT", "external capsule"),
    "corpus callosum": Code("88442005", "SCT", "Corpus callosum"),
    "white matter": Code("68523003", "SCT", "Cerebral White Matter"),
    "brainstem": Code("119238007", "SCT", "Brain Stem"),
    "cerebellum": Code("113305005", "SCT", "Cerebellum"),
}
LATERALITY: Final[dict[str, Code]] = {  # CID 244; the midline has no laterality
    "left": Code("7771000", "SCT", "Left"),
    "right": Code("24028007", "SCT", "Right"),
}


def site(lesion: Lesion) -> tuple[Code, Code | None]:
    """Finding site and laterality of `lesion`; *Brain* when its location was not assessed or has no code."""
    location = (lesion.location or "").casefold().replace("_", " ")
    return LOCATIONS.get(location, BRAIN), LATERALITY.get((lesion.side or "").casefold())
