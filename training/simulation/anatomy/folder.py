"""How is a folder of labelled heads read? A label scheme says which number is which tissue."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.errors import InputError
from training.simulation.tissue import Tissue

from .tissue_maps import Anatomy, AnatomyRef

SCHEME_FILE = "scheme.toml"
DEFAULT_SCHEME = "brainweb"


@dataclass(frozen=True)
class LabelScheme:
    """Which number means which tissue, and how the files are named.

    Parameters
    ----------
    name : str
        For messages and the truth file.
    labels : dict
        Label value to tissue.
    label_suffix, vessel_suffix : str
        A head's label file is ``<name><label_suffix>``; its vessel map, if any, ``<name><vessel_suffix>``.
    """

    name: str
    labels: dict[int, Tissue]
    label_suffix: str
    vessel_suffix: str


def available_schemes() -> list[str]:
    """Names of the label schemes that come with the simulator."""
    return sorted(
        Path(p.name).stem for p in files(__package__).joinpath("schemes").iterdir() if p.name.endswith("toml")
    )


def _parse_scheme(text: str, name: str, where: str) -> LabelScheme:
    try:
        document = tomllib.loads(text)
        labels = {int(value): Tissue[tissue.upper()] for value, tissue in document["labels"].items()}
        return LabelScheme(name, labels, document["files"]["labels"], document["files"].get("vessels", ""))
    except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        tissues = ", ".join(t.name.lower() for t in Tissue)
        raise InputError(
            f"not a label scheme ({error})", where=where, do=f"it needs [labels] number = one of {tissues}, and [files]"
        ) from None


def load_scheme(folder: Path, name: str | None = None) -> LabelScheme:
    """The scheme called `name`, else the folder's own ``scheme.toml``, else BrainWeb's.

    Raises
    ------
    InputError
        If `name` is unknown or the file is not a scheme.
    """
    own = folder / SCHEME_FILE
    if name is None and own.is_file():
        return _parse_scheme(own.read_text(), own.stem, str(own))
    name = name or DEFAULT_SCHEME
    bundled = files(__package__).joinpath("schemes", f"{name}.toml")
    if not bundled.is_file():
        known = ", ".join(available_schemes())
        raise InputError(
            f"unknown label scheme {name!r}", do=f"use one of {known}, or put a {SCHEME_FILE} in the folder"
        )
    return _parse_scheme(bundled.read_text(), name, name)


def anatomies_in_folder(folder: Path, scheme: str | None = None) -> tuple[AnatomyRef, ...]:
    """Every labelled head of `folder`, sorted by name.

    Raises
    ------
    InputError
        If there is no such folder, no head in it, or the scheme is unknown.
    """
    if not folder.is_dir():
        raise InputError(
            "no such folder of anatomies", where=str(folder), do="give --anatomy a folder of labelled heads"
        )
    found = load_scheme(folder, scheme)
    heads = sorted(p.name.removesuffix(found.label_suffix) for p in folder.glob(f"*{found.label_suffix}"))
    if not heads:
        raise InputError(
            f"no labelled head (*{found.label_suffix})", where=str(folder), do=f"check the scheme {found.name!r}"
        )
    return tuple(AnatomyRef(head, folder, scheme) for head in heads)


def _read_lps(path: Path) -> tuple[NDArray[np.uint8], float, tuple[float, float, float]]:
    """An image as (k, j, i) along LPS, with its voxel edge and origin in LPS.

    Raises
    ------
    InputError
        If it cannot be read or its voxels are not cubes.
    """
    try:
        image: Any = nib.load(str(path))
        canonical = nib.as_closest_canonical(image)  # axes along RAS
        array = np.asarray(canonical.dataobj)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError) as error:
        raise InputError(f"cannot be read as NIfTI ({error})", where=str(path)) from None
    affine = canonical.affine
    step = np.diag(affine)[:3]
    if array.ndim != 3 or np.ptp(step) > 1e-3 or not np.allclose(affine[:3, :3], np.diag(step), atol=1e-3):
        raise InputError("not a 3D image of cubic voxels along the MNI axes", where=str(path), do="resample it first")
    i, j, _ = array.shape
    origin = (
        float(-(affine[0, 3] + step[0] * (i - 1))),
        float(-(affine[1, 3] + step[1] * (j - 1))),
        float(affine[2, 3]),
    )
    lps = np.ascontiguousarray(array[::-1, ::-1, :].transpose(2, 1, 0).astype(np.uint8))
    return lps, float(step[0]), origin


def _soft(mask: NDArray[np.bool_], sigma_voxels: float) -> NDArray[np.uint8]:
    """A mask as a fraction with the slightly soft edge that hard labels lack."""
    soft = np.zeros(mask.shape, dtype=np.uint8)
    margin = round(4 * sigma_voxels) + 1  # the filter reaches no farther
    for box in ndimage.find_objects(mask.view(np.uint8)):
        wide = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in box)
        part = mask[wide].astype(np.float32) * 255
        soft[wide] = ndimage.gaussian_filter(part, sigma_voxels).round().astype(np.uint8)
    return soft


def folder_anatomy(ref: AnatomyRef) -> Anatomy:
    """Read one head of a folder.

    Raises
    ------
    InputError
        If a file cannot be read or holds labels that the scheme does not know.
    """
    folder = ref.folder
    if folder is None:
        raise ValueError("the reference names no folder")
    scheme = load_scheme(folder, ref.scheme)
    path = folder / f"{ref.name}{scheme.label_suffix}"
    labels, spacing, origin = _read_lps(path)
    unknown = sorted(set(np.unique(labels).tolist()) - scheme.labels.keys())
    if unknown:
        raise InputError(
            f"labels {unknown} are not in the label scheme {scheme.name!r}",
            where=str(path),
            do=f"put a {SCHEME_FILE} beside it that names them",
        )
    table = np.zeros(256, dtype=np.uint8)
    for value, tissue in scheme.labels.items():
        table[value] = tissue
    tissues = table[labels]
    vessels = None
    vessel_path = folder / f"{ref.name}{scheme.vessel_suffix}"
    if scheme.vessel_suffix and vessel_path.is_file():
        vessels, _, _ = _read_lps(vessel_path)
        if vessels.shape != labels.shape:
            raise InputError("the vessel map and the labels differ in size", where=str(vessel_path))
    # Vessels lie in fluid; they are drawn in from the vessel map.
    brainlike = np.isin(tissues, (Tissue.CSF, Tissue.GREY, Tissue.WHITE))
    tissues[tissues == Tissue.ARTERY] = Tissue.CSF
    soft = 0.35 / spacing
    csf, grey, white = (_soft(tissues == t, soft) for t in (Tissue.CSF, Tissue.GREY, Tissue.WHITE))
    other = np.where(brainlike | (tissues == Tissue.CSF), np.uint8(Tissue.CSF), tissues)
    return Anatomy(ref.name, csf, grey, white, other, vessels, spacing, origin)
