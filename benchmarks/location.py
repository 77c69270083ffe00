"""Is each bleed given its right region and side? Places of simulated bleeds and mimics, named from the images alone.

    python -m benchmarks.location STUDIES [--anatomy FOLDER] [--every N] [--first-only]

STUDIES is a folder of simulated studies (`cmbtrain simulate --format arrays`), FOLDER the labelled heads they were made
of. The brain is the one that the pipeline extracts. There are two truths: the parcellation at the place where the
simulator put the inclusion, with the distance from that head's own cortex, of which the pipeline has only the
template's; and the atlas's own region at the true place, which tells the registration alone. What the true side owes to
the plane it is measured from is told by that head's own midline: the side that this gives at the true place is held
against the truth, too. The rows after the first are made of the same images: the head turned, slabs cut out of it,
slices put together to thick ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.anatomy import locate
from pipeline.anatomy.atlas import load_atlas
from pipeline.brain import extract_brain
from pipeline.findings import wording
from pipeline.geometry import Acquisition, Geometry, Volume
from training.datasets.simulated import TRUTH, list_simulated
from training.simulation.anatomy import list_anatomies, load_anatomy
from training.simulation.coarse_grid import SampledGrid
from training.simulation.head import Slab, displacement
from training.simulation.head_parameters import HeadParameters
from training.simulation.midline import OwnMidline, anatomy_midline
from training.simulation.regions import MIDLINE_MM, anatomy_depth, region_of, side_of

FLIP = {"left": "right", "right": "left", "midline": "midline"}
Floats = NDArray[np.float64]


@dataclass
class Row:
    """What was counted under one condition."""

    studies: int = 0
    assessed: int = 0
    places: int = 0
    region: int = 0
    atlas: int = 0
    near: int = 0
    clear: int = 0
    location: int = 0
    side: int = 0
    midline: int = 0
    lateral: int = 0
    swapped: int = 0
    seconds: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """The row of the table."""
        of = max(self.places, 1)
        shares = " | ".join(
            f"{100 * n / of:.1f} %"
            for n in (self.atlas, self.region, self.near, self.location, self.side, self.midline)
        )
        clear = 100 * self.clear / max(self.places - self.near, 1)
        lateral = 100 * (1 - self.swapped / max(self.lateral, 1))
        return (
            f"| {name} | {self.assessed} of {self.studies} | {self.places} | {shares} | {clear:.1f} % "
            f"| {lateral:.1f} % | {np.median(self.seconds):.1f} |"
        )


@lru_cache(maxsize=1)
def anatomy(folder: Path | None, name: str) -> tuple[Any, SampledGrid, OwnMidline]:
    head = load_anatomy(next(one for one in list_anatomies(folder) if one.name == name))
    return head, anatomy_depth(head), anatomy_midline(head)


@dataclass(frozen=True)
class Truth:
    """Where an inclusion is, what the atlas has there, and whether the head's own midline gives the same side."""

    region: str
    location: str
    side: str
    region_of_atlas: str
    same_side: bool


def truth(document: dict[str, Any], points: Floats, folder: Path | None) -> list[Truth]:
    """What is true of points in patient coordinates."""
    source, depth, midline = anatomy(folder, document["anatomy"])
    scene = document["parameters"]["scene"]
    head, slab = (
        cls(**{k: _tuple(v) for k, v in scene[n].items()}) for cls, n in ((HeadParameters, "head"), (Slab, "slab"))
    )
    rng = np.random.default_rng([document["seeds"]["head"], 1])
    mni = displacement(source, head, slab.geometry(), rng)(points)
    found = []
    for point, d, middle in zip(mni, depth(mni), midline(mni), strict=True):
        region, location, side = region_of(point, float(d))
        same = side_of(float(point[0] - middle)) == side
        atlas = load_atlas().place(point).region
        found.append(Truth(region, location, FLIP[side] if head.mirror else side, atlas, same))
    return found


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def turned(volume: Volume, angles: tuple[float, float, float]) -> tuple[Volume, Floats]:
    """The head turned in the scanner, with the rotation."""
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine = volume.geometry.affine.copy()
    affine[:3] = rotation @ affine[:3]
    return replace(volume, geometry=Geometry(volume.geometry.shape, affine)), rotation


def cut(volume: Volume, low: float, high: float, together: int = 1) -> Volume:
    """Slices from one share of the stack to another, some put together."""
    first = int(low * volume.array.shape[0])
    n = (int(high * volume.array.shape[0]) - first) // together
    blocks = volume.array[first : first + n * together].reshape(n, together, *volume.array.shape[1:])
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = volume.geometry.to_lps([0, 0, first + (together - 1) / 2])
    affine[:3, 2] *= together
    shape = (n, volume.array.shape[1], volume.array.shape[2])
    return replace(volume, array=blocks.mean(axis=1), geometry=Geometry(shape, affine))


def conditions(image: Volume) -> Iterator[tuple[str, Volume, Floats]]:
    """The image as it is, and what else a scanner might have sent."""
    yield "as simulated", image, np.eye(3)
    yield "nodding by 30°", *turned(image, (30, 0, 0))
    yield "turned by 20° and tilted by 15°", *turned(image, (0, 15, -20))
    yield "upper half", cut(image, 0.5, 1.0), np.eye(3)
    yield "lower half", cut(image, 0.0, 0.5), np.eye(3)
    yield "middle third", cut(image, 0.33, 0.67), np.eye(3)
    yield "slices thrice as thick", cut(image, 0.0, 1.0, 3), np.eye(3)


def count(row: Row, image: Volume, points: Floats, true: list[Truth]) -> None:
    brain = extract_brain(image)
    k = image.geometry.to_ijk(points)[:, 2]
    inside = np.flatnonzero((k > -0.5) & (k < image.geometry.shape[0] - 0.5))
    started = time.process_time()
    placement, places = locate(Acquisition(image), brain, [tuple(points[n].tolist()) for n in inside])
    row.seconds.append(time.process_time() - started)
    row.studies += 1
    row.assessed += placement.assessed
    if not placement.assessed:
        return
    for n, place in zip(inside, places, strict=True):
        one = true[n]
        row.places += 1
        row.region += place.region == one.region
        near = place.border_mm < wording.NEAR_BORDER_MM
        row.near += near
        row.clear += not near and place.region == one.region
        row.atlas += place.region == one.region_of_atlas
        row.location += place.location == one.location
        row.side += place.side == one.side
        row.midline += one.same_side
        row.lateral += "midline" not in (one.side, place.side)
        row.swapped += "midline" not in (one.side, place.side) and place.side != one.side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("studies", type=Path)
    parser.add_argument("--anatomy", type=Path, help="folder of labelled heads; by default ICBM152")
    parser.add_argument("--every", type=int, default=1, help="only every so manieth study")
    parser.add_argument("--first-only", action="store_true", help="only the images as simulated")
    given = parser.parse_args()
    rows: dict[str, Row] = {}
    paths = sorted(given.studies.rglob(TRUTH))[:: given.every]
    paths.sort(key=lambda path: json.loads(path.read_text())["anatomy"])
    for path in paths:
        document = json.loads(path.read_text())
        points = np.array([e["centre_lps_mm"] for e in (*document["lesions"], *document["mimics"])]).reshape(-1, 3)
        acquisition = list_simulated(path.parent)[0].read().acquisition
        true = truth(document, points, given.anatomy)
        for name, image, rotation in conditions(acquisition.magnitude or acquisition.swi):
            count(rows.setdefault(name, Row()), image, points @ rotation.T, true)
            if given.first_only:
                break
    print(
        f"Side: exact, with the midline being what lies within {MIDLINE_MM} mm of it. Time: CPU seconds on one core.\n"
    )
    columns = (
        "images | assessed | places | region of the atlas | region by own cortex | near a border | location | side"
    )
    print(f"| {columns} | side by own midline | region away from borders | not swapped | CPU s |")
    print("|---|" + 11 * "---:|")
    for name, row in rows.items():
        print(row.line(name), flush=True)


if __name__ == "__main__":
    main()
