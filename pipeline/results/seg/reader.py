"""Which voxels did an earlier result mark as microbleeds? Reads the Segmentation onto the grid of the SWI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from pipeline.errors import InputError, type_and_place
from pipeline.geometry import Volume

Mask = NDArray[np.bool_]


def read_segments(path: Path, swi: Volume) -> dict[str, Mask]:
    """Read a segmentation that :func:`pipeline.results.seg.segmentation.make_segmentation` made of `swi`.

    Frames are assigned to slices by the image that each refers to, without rounding of positions.

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
            masks[uids[segment_number(seg, groups)]][slices[_source(groups)]] |= frame
    except (InvalidDicomError, OSError, AttributeError, KeyError, ValueError, IndexError) as error:
        what = f"is not a segmentation of these images ({type_and_place(error)})"
        raise InputError(what, where=str(path)) from error
    return masks


def segment_number(segmentation: Dataset, groups: Dataset) -> int:
    """Number of the segment that a frame belongs to (a single segment is named once for all frames)."""
    if "SegmentIdentificationSequence" not in groups:
        groups = segmentation.SharedFunctionalGroupsSequence[0]
    return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _source(groups: Dataset) -> tuple[str, int | None]:
    item = groups.DerivationImageSequence[0].SourceImageSequence[0]
    number = item.get("ReferencedFrameNumber")
    return str(item.ReferencedSOPInstanceUID), None if number is None else int(number)
