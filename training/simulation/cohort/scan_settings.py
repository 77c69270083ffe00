"""Which head, veins and protocol does study n of a set get? Drawn from the set's ranges by its seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from training.simulation.anatomy import AnatomyRef
from training.simulation.head import Slab
from training.simulation.head_parameters import draw_head
from training.simulation.protocol import NoiseModel, Protocol, SwiFilter
from training.simulation.scene import SceneParameters

from .plan import DEFAULT_TIMING, Cohort, ProtocolRange, Span, StudySet, Timing

Rng = np.random.Generator
T = TypeVar("T")


@dataclass(frozen=True)
class HeadTask:
    """One head and the studies made of it.

    Parameters
    ----------
    cohort, set_name : str
        Where it belongs.
    index : int
        Number of the head within its set.
    anatomy : AnatomyRef
        Whose head.
    seed : int
        Of the head.
    studies : tuple of int
        Numbers of its studies within the set.
    """

    cohort: Cohort
    set_name: str
    index: int
    anatomy: AnatomyRef
    seed: int
    studies: tuple[int, ...]

    @property
    def set(self) -> StudySet:
        """The set's entry in the cohort."""
        return next(s for s in self.cohort.sets if s.name == self.set_name)

    def study_name(self, study: int) -> str:
        """Folder name of a study."""
        return f"{self.set_name}-{study:04d}"

    def study_seed(self, study: int) -> int:
        """Seed of a study's lesions, protocol and noise."""
        return int(np.random.SeedSequence([self.cohort.seed, _name_seed(self.set_name), 7, study]).generate_state(1)[0])


def _name_seed(name: str) -> int:
    return zlib.crc32(name.encode())


def head_tasks(cohort: Cohort, chosen: StudySet, anatomies: tuple[AnatomyRef, ...]) -> list[HeadTask]:
    """All heads of a set, going round its anatomies in turn."""
    tasks = []
    for index, first in enumerate(range(0, chosen.studies, chosen.studies_per_head)):
        studies = tuple(range(first, min(first + chosen.studies_per_head, chosen.studies)))
        seed = np.random.SeedSequence([cohort.seed, _name_seed(chosen.name), index]).generate_state(1)[0]
        tasks.append(HeadTask(cohort, chosen.name, index, anatomies[index % len(anatomies)], int(seed), studies))
    return tasks


def _within(span: Span, rng: Rng) -> float:
    return round(float(rng.uniform(*span)), 4)


def _timing(ranges: ProtocolRange, field_t: float) -> Timing:
    if ranges.timing is not None:
        return ranges.timing
    nearest = min(DEFAULT_TIMING, key=lambda f: abs(f - field_t))
    return DEFAULT_TIMING[nearest]


def draw_scene(task: HeadTask) -> SceneParameters:
    """Shape, pose, veins and slab of a head."""
    rng = np.random.default_rng([task.seed, 5])
    chosen = task.set
    head = draw_head(rng)
    pitch = head.pose_deg[0] * rng.uniform(0, 1)  # the slices follow the head, more or less
    turn = rng.normal(0, chosen.oblique_deg / 2, 3)
    oblique = (
        tuple(np.clip(turn + np.array([pitch, 0.0, 0.0]), -30, 30).round(2).tolist())
        if chosen.oblique_deg > 0
        else (0.0,) * 3
    )
    if chosen.head is not None:
        head = chosen.head.vary(head, np.random.default_rng([task.seed, 9]))
    generator = chosen.generators[task.index % len(chosen.generators)]
    slab = Slab(chosen.fov_mm, chosen.fine_mm, oblique)
    return SceneParameters(head, slab, generator, chosen.veins, chosen.texture, chosen.short_veins)


def draw_protocol(ranges: ProtocolRange, study: int, rng: Rng) -> Protocol:
    """One protocol; choices that matter most (field strength, voxel, vendor) go round in turn, the rest is random."""
    field_t = ranges.field_strength_t[study % len(ranges.field_strength_t)]
    timing = _timing(ranges, field_t)
    spread = 1 + ranges.timing_jitter * rng.uniform(-1, 1, 2)
    how = SwiFilter(
        kind=ranges.filters[int(rng.integers(len(ranges.filters)))],
        width=ranges.width[int(rng.integers(len(ranges.width)))],
        sigma_mm=round(float(rng.uniform(1.8, 3.5)), 2),
        power=ranges.power[int(rng.integers(len(ranges.power)))],
        mip_mm=_within(ranges.mip_mm, rng),
    )
    moved = rng.random() < ranges.motion_share
    motion = _within(ranges.motion_mm, rng)
    protocol = Protocol(
        name=f"{ranges.sequence}-{field_t:g}t",
        field_strength_t=field_t,
        echo_time_ms=round(timing.echo_time_ms * spread[0], 2),
        repetition_time_ms=timing.repetition_time_ms,
        flip_angle_deg=round(timing.flip_angle_deg * spread[1], 1),
        voxel_mm=ranges.voxel_mm[int(rng.integers(len(ranges.voxel_mm)))],
        sequence=ranges.sequence,
        vendor=ranges.vendors[study % len(ranges.vendors)],
        filter=how,
        snr=_within(ranges.snr, rng),
        partial_fourier=ranges.partial_fourier[int(rng.integers(len(ranges.partial_fourier)))],
        window=_within(ranges.window, rng),
        zero_fill=ranges.zero_fill[int(rng.integers(len(ranges.zero_fill)))],
        motion_mm=motion if moved else 0.0,
        shading=_within(ranges.shading, rng),
    )
    return _vary(protocol, ranges, rng)


def _pick(choices: tuple[T, ...] | None, rng: Rng) -> T | None:
    return None if choices is None else choices[int(rng.integers(len(choices)))]


def _maybe(span: Span | None, rng: Rng) -> float | None:
    return None if span is None else _within(span, rng)


def _vary(protocol: Protocol, ranges: ProtocolRange, rng: Rng) -> Protocol:
    """What only some cohorts vary; nothing is drawn for the others, so that their seeds keep their meaning."""
    how = replace(protocol.filter, mask=_pick(ranges.masks, rng))
    noise = None
    if ranges.noise_exponent is not None or ranges.g_factor is not None:
        colour, amplified = _maybe(ranges.noise_exponent, rng), _maybe(ranges.g_factor, rng)
        noise = NoiseModel(colour or 0.0, amplified or 1.0, _pick(ranges.acceleration, rng) or 2)
    pulsating = ranges.ghost_share is not None and rng.random() < ranges.ghost_share
    return replace(
        protocol,
        filter=how,
        noise=noise,
        apodisation=_pick(ranges.apodisations, rng),
        bias=_maybe(ranges.bias, rng),
        slab_edge=_maybe(ranges.slab_edge, rng),
        slice_width=_maybe(ranges.slice_width, rng),
        slice_fill=_pick(ranges.slice_fill, rng),
        ghost=_maybe(ranges.ghost, rng) if pulsating else None,
    )
