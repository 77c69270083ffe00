"""Which voxels did an earlier result call a bleed? Reads our own Segmentation back, on the grid of the SWI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from pipeline.errors import InputError
from pipeline.geometry import Volume

Mask = NDArray[np.bool_]


def read_segments(path: Path, swi: Volume) -> dict[str, Mask]:
    """Read a segmentation that :func:`pipeline.results.segmentation.make_segmentation` made of `swi`.

    Frames are laid on slices by the image that each refers to, so no geometry is rounded.

    Parameters
    ----------
    path : Path
        The SEG.
    swi : Volume
        The images it was made from.

    Returns
    -------
    dict of str to ndarray of bool, shape of the SWI
        The voxels of each segment, by its Tracking UID.

    Raises
    ------
    InputError
        If the file cannot be read, or was made of other images.
    """
    try:
        seg = dcmread(path)
        slices = {(f.sop_instance_uid, f.frame_number): k for k, f in enumerate(swi.frames)}
        uids = {int(item.SegmentNumber): str(item.TrackingUID) for item in seg.SegmentSequence}
        masks = {uid: np.zeros(swi.array.shape, bool) for uid in uids.values()}
        pixels = seg.pixel_array.reshape(-1, int(seg.Rows), int(seg.Columns)).astype(bool)
        for frame, groups in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
            masks[uids[_number(seg, groups)]][slices[_source(groups)]] |= frame
    except (InvalidDicomError, OSError, AttributeError, KeyError, ValueError, IndexError) as error:
        what = f"is no segmentation of these images ({type(error).__name__}: {error})"
        raise InputError(what, where=str(path)) from error
    return masks


def _number(seg: Dataset, groups: Dataset) -> int:
    """Of one frame; a segmentation may say it once for all frames."""
    if "SegmentIdentificationSequence" not in groups:
        groups = seg.SharedFunctionalGroupsSequence[0]
    return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _source(groups: Dataset) -> tuple[str, int | None]:
    item = groups.DerivationImageSequence[0].SourceImageSequence[0]
    number = item.get("ReferencedFrameNumber")
    return str(item.ReferencedSOPInstanceUID), None if number is None else int(number)
