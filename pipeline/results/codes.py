"""Which codes describe a microbleed, how certain it is, and where it lies?

Terms come from DICOM PS3.16 (DCM), SNOMED CT (SCT), UCUM and UMLS. No DICOM context group has a term for a cerebral
microbleed; the closest is *Hemorrhage* (CID 7151), and the tracking identifier names it in words. What none of
them has a term for is coded in a private scheme, :data:`PRIVATE_SCHEME`.
"""

from __future__ import annotations

from typing import Final

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pipeline.findings import Certainty, Lesion, Trend

MORPHOLOGICALLY_ABNORMAL: Final = Code("49755003", "SCT", "Morphologically Abnormal Structure")  # CID 7150
HEMORRHAGE: Final = Code("50960005", "SCT", "Hemorrhage")  # CID 7151
BRAIN: Final = Code("12738006", "SCT", "Brain")

# CID 646 has it; CID 100, which TID 1500 names, has nothing more specific than "MRI unspecified body region" and is
# extensible.
PROCEDURE_REPORTED: Final = Code("24590-2", "LN", "Brain MRI")
# CID 7005: purpose of the one Contributing Equipment item. IHE AI Results asks for *Processing Algorithm*, for which
# the trial implementation has a placeholder and PS3.16 no code.
PROCESSING_EQUIPMENT: Final = Code("109102", "DCM", "Processing Equipment")

NUMBER_OF_LESIONS: Final = Code("246206008", "SCT", "Number of lesions")
CENTRE: Final = Code("111010", "DCM", "Center")  # CID 219
IMAGING_MEASUREMENTS: Final = Code("126010", "DCM", "Imaging Measurements")  # TID 1500, row 6
DERIVED_MEASUREMENTS: Final = Code("126011", "DCM", "Derived Imaging Measurements")  # TID 1500, row 10
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

VERIFYING: Final = Code("121098", "DCM", "Verifying")  # CID 7453

IMAGE_QUALITY: Final = Code("111101", "DCM", "Image Quality")
SLICE_STEP: Final = Code("112226", "DCM", "Spacing between slices")
SIGNAL_TO_NOISE: Final = Code("111787", "DCM", "Signal to Noise Ratio")

SEGMENTATION: Final = Code("113076", "DCM", "Segmentation")
KEY_IMAGES: Final = Code("121180", "DCM", "Key Images")

# CID 7010
OF_INTEREST: Final = Code("113000", "DCM", "Of Interest")
INCORRECT_WORKLIST_ENTRY: Final = Code("113038", "DCM", "Incorrect Modality Worklist Entry")
RETENTION_EXPIRED: Final = Code("113039", "DCM", "Data Retention Policy Expired")

PRIVATE_SCHEME: Final = "99CMBNODE"
PRIVATE_SCHEME_NAME: Final = "cmb-node private terms"


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


RESULT_OBJECTS: Final = _private("RESULT_OBJECTS", "Objects of this result")
PICTURE: Final = _private("PICTURE", "Picture of the result")

IN_PLANE: Final = _private("IN_PLANE", "In-plane voxel size")
COVERAGE: Final = _private("COVERAGE", "Share of the brain inside the slices")
GHOSTS: Final = _private("GHOSTS", "Energy of ghosts over background")

PATTERN: Final = _private("PATTERN", "Distribution pattern of microbleeds")
PATTERNS: Final[dict[str, Code]] = {
    "none": _private("NO_BLEED", "No microbleed"),
    "strictly lobar": _private("STRICTLY_LOBAR", "Strictly lobar"),
    "strictly deep": _private("STRICTLY_DEEP", "Strictly deep or infratentorial"),
    "mixed": _private("MIXED", "Lobar and deep or infratentorial"),
}
BURDEN: Final = _private("BURDEN", "Number class of microbleeds")
BURDENS: Final[dict[str, Code]] = {
    "0": _private("BURDEN_0", "0"),
    "1-4": _private("BURDEN_1", "1 to 4"),
    "5-9": _private("BURDEN_5", "5 to 9"),
    ">=10": _private("BURDEN_10", "10 or more"),
}

CHANGE: Final = _private("CHANGE", "Change since prior study")
TRENDS: Final[dict[Trend, Code]] = {
    Trend.NEW: Code("7147002", "SCT", "New"),
    Trend.STABLE: Code("58158008", "SCT", "Stable"),
}
NO_LONGER_SEEN: Final = _private("NOT_SEEN", "No longer seen")
UNDECIDED: Final = _private("UNDECIDED", "Change not decided")

ARIA_H: Final = _private("ARIA_H", "Radiographic grade of ARIA-H, new microbleeds")
GRADES: Final[dict[str, Code]] = {
    "none": Code("260413007", "SCT", "None"),
    "mild": Code("255604002", "SCT", "Mild"),
    "moderate": Code("6736007", "SCT", "Moderate"),
    "severe": Code("24484000", "SCT", "Severe"),
}

# CID 7162. Without trained weights the detector is image processing on voxel neighbourhoods.
LEARNED: Final = Code("123110", "DCM", "Artificial Intelligence")
CLASSICAL: Final = Code("123101", "DCM", "Neighborhood Analysis")

# MARS (Gregoire 2009); the keys are the terms of `findings.json`.
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
