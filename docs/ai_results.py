"""What does IHE AI Results (AIR) ask of an Evidence Creator, and what is sent? Judged on the results of the samples.

Each line says in our own words what the profile asks. Whether it is met is read from objects that the pipeline makes;
nothing is met because somebody wrote so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from pipeline.results import codes

Samples = Sequence[dict[str, Dataset]]
_IMAGING, _DERIVED, _QUALITATIVE = "126010", "126011", "C0034375"


@dataclass(frozen=True)
class ProfileLine:
    """One thing that the profile asks.

    Parameters
    ----------
    is_met : callable or str
        Judges the samples; a text says why it is not met, or met only in part.
    """

    asks: str
    sent: str
    is_met: Callable[[Samples], bool] | str

    def verdict(self, samples: Samples) -> str:
        """The last cell of the row."""
        if isinstance(self.is_met, str):
            return self.is_met
        return "yes" if self.is_met(samples) else "no"


def lines(samples: Samples) -> list[list[str]]:
    """Rows of a table: what is asked, what is sent, and whether that meets it."""
    return [[line.asks, line.sent, line.verdict(samples)] for line in LINES]


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _items(child)


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def _referred(document: Dataset) -> set[str]:
    return {
        str(reference.ReferencedSOPInstanceUID)
        for item in _items(document)
        for reference in item.get("ReferencedSOPSequence", ())
    }


def _container(report: Dataset, code: str) -> list[Dataset]:
    return [
        child for item in report.ContentSequence if _name(item) == code for child in item.get("ContentSequence", ())
    ]


def _groups(report: Dataset) -> list[Dataset]:
    """The groups of microbleeds; without one, the container names the algorithm alone."""
    return [item for item in _container(report, _IMAGING) if item.ValueType == "CONTAINER"]


def _each_report(judge: Callable[[Dataset], bool]) -> Callable[[Samples], bool]:
    return lambda samples: all(judge(sample["sr"]) for sample in samples)


def _each_group(*names: str) -> Callable[[Samples], bool]:
    """Whether each group of a microbleed has items of these names."""
    return _each_report(
        lambda report: all(set(names) <= {_name(item) for item in _items(group)} for group in _groups(report))
    )


def _is_tree(samples: Samples) -> bool:
    """Whether the report is the one object that no other names, and names every other."""
    for sample in samples:
        others = {str(ds.SOPInstanceUID) for kind, ds in sample.items() if kind != "sr"}
        named = {uid for ds in sample.values() for uid in _referred(ds)}
        if not others <= _referred(sample["sr"]) or str(sample["sr"].SOPInstanceUID) in named:
            return False
    return True


def _tracks(samples: Samples) -> bool:
    """Whether report and segmentation give each microbleed the same unique identifier."""
    for sample in samples:
        groups = {str(item.UID) for group in _groups(sample["sr"]) for item in _items(group) if _name(item) == "112040"}
        segments = {str(one.TrackingUID) for one in sample["seg"].SegmentSequence} if "seg" in sample else set()
        if groups != segments:
            return False
    return True


def _versions(samples: Samples) -> bool:
    """Whether the result that replaces another one names it, and the others name none."""
    naming = ["PredecessorDocumentsSequence" in sample["sr"] for sample in samples]
    revised = ["revision" in sample["sr"].SeriesDescription for sample in samples]
    return naming == revised and any(naming)


LINES = (
    ProfileLine(
        "Results are SOP Instances in the study that was analysed, in series of their own",
        "every object has the patient and study of the images, and a series of its own",
        lambda samples: all(
            len({str(ds.StudyInstanceUID) for ds in sample.values()}) == 1
            and len({str(ds.SeriesInstanceUID) for ds in sample.values()}) == len(sample)
            for sample in samples
        ),
    ),
    ProfileLine(
        "The root of the results is a document by TID 1500, Measurement Report",
        "Comprehensive 3D SR, TID 1500",
        _each_report(
            lambda report: (
                report.SOPClassUID == Comprehensive3DSRStorage
                and report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
            )
        ),
    ),
    ProfileLine(
        "Every result can be reached from the root: a tree without loose ends",
        "the SR names SEG, capture and key objects in its content (*Objects of this result*, a container that TID "
        "1500, which is extensible, does not have) and lists them as evidence; no object names the SR",
        _is_tree,
    ),
    ProfileLine(
        "Qualitative findings are coded",
        "number class, distribution pattern and ARIA-H grade as codes, most of them of a private scheme, for lack of "
        "standard ones; a summary as text",
        _each_report(lambda report: {"TEXT", "CODE"} <= {item.ValueType for item in _container(report, _QUALITATIVE)}),
    ),
    ProfileLine(
        "Measurements are NUM items in measurement groups, with units",
        "TID 1411 for each microbleed (diameter, volume, probability), TID 1501 for numbers and image quality",
        _each_group("81827009", "118565006", "122157"),
    ),
    ProfileLine(
        "Locations are spatial coordinates",
        "the centre of each microbleed, as SCOORD on its slice, and as SCOORD3D if the images have a frame of "
        "reference",
        _each_report(
            lambda report: all(
                {"SCOORD", "SCOORD3D"} <= {item.ValueType for item in _items(group)} for group in _groups(report)
            )
        ),
    ),
    ProfileLine(
        "Regions are segments of a Segmentation, referenced by the group that describes them",
        "SEG (BINARY), one segment for each microbleed; none without a microbleed",
        _each_group("121191"),
    ),
    ProfileLine("Parametric maps", "none: the detector makes no map", "not applicable"),
    ProfileLine(
        "A finding keeps its tracking identifier, in every object that describes it",
        "Tracking Identifier and Tracking UID, equal in SR and SEG",
        _tracks,
    ),
    ProfileLine(
        "Finding and finding site are coded",
        "*Hemorrhage* and region, with side: no context group has a code for a cerebral microbleed; the tracking "
        "identifier names it",
        _each_group("121071", "363698007"),
    ),
    ProfileLine(
        "Each group identifies its algorithm, by name and version (TID 4019)",
        "name, version, family, and the profile and weights by SHA-256 as parameters",
        _each_group("111001", "111003"),
    ),
    ProfileLine(
        "The images analysed are referenced",
        "all of them in the Image Library (TID 1600); the source image of each measurement and segment",
        _each_report(lambda report: any(_name(item) == "111028" for item in report.ContentSequence)),
    ),
    ProfileLine(
        "Key images are a Key Object Selection",
        "*Of Interest*, the slices with microbleeds; only if `results.key_objects` is set and there are any",
        lambda samples: all(("ko" in sample) == ("seg" in sample) for sample in samples),
    ),
    ProfileLine(
        "That nothing was found is a result, too",
        "an SR with 0 lesions, without groups of microbleeds, and no SEG",
        lambda samples: any(
            "seg" not in sample and not _groups(sample["sr"]) and _container(sample["sr"], _DERIVED)
            for sample in samples
        ),
    ),
    ProfileLine(
        "Procedure Reported is the imaging procedure (CID 100)",
        "(24590-2, LN, Brain MRI), of CID 646: CID 100 has nothing more specific than an MRI of an unspecified region, "
        "and is extensible",
        "in part: an extension of the context group",
    ),
    ProfileLine(
        "The observer is a device, identified by its UID (TID 1004)",
        "the detector, and the reader as second observer of a verified result",
        _each_report(lambda report: "121012" in {_name(item) for item in report.ContentSequence}),
    ),
    ProfileLine(
        "One item of Contributing Equipment describes the algorithm; its UID changes with the model",
        "one item in every object; its UID derives from profile, weights and version",
        lambda samples: all(
            len(ds.ContributingEquipmentSequence) == 1 and "DeviceUID" in ds.ContributingEquipmentSequence[0]
            for sample in samples
            for ds in sample.values()
        ),
    ),
    ProfileLine(
        "The purpose of that item is *Processing Algorithm*",
        f"({codes.PROCESSING_EQUIPMENT.value}, DCM, {codes.PROCESSING_EQUIPMENT.meaning}): PS3.16 has no code for it",
        "in part: another code",
    ),
    ProfileLine(
        "A result that replaces another one names its predecessor",
        "Predecessor Documents of the SR; series description and number say which revision every object is of; on "
        "request a rejection note (IHE IOCM) hides the earlier objects",
        _versions,
    ),
    ProfileLine(
        "Completion and verification are stated",
        "COMPLETE; VERIFIED with the reader's name after a reader has confirmed it, otherwise UNVERIFIED",
        _each_report(lambda report: report.CompletionFlag == "COMPLETE" and "VerificationFlag" in report),
    ),
    ProfileLine(
        "Results are stored by C-STORE or STOW-RS, and storage commitment can be requested",
        "both, by destination; commitment if `commit_within_s` is set",
        "yes, see 3.3",
    ),
    ProfileLine(
        "(not asked) a picture for displays without support of the above",
        "Secondary Capture, marked as for research use, named by the root",
        lambda samples: all("capture" in sample for sample in samples),
    ),
)
