"""Which SWI of a study is analysed, and with which phase and magnitude?

Acquisitions are never mixed: images used together lie on the same grid in the same frame of reference and were acquired
at the same time, as far as the headers say. Missing information is no objection; the images are checked again when
they are read (:mod:`pipeline.read.volume`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from pipeline.uids import job_key

from .headers import Vector
from .recognition import SeriesRole
from .series import Series, Study

GRID_TOLERANCE_MM = 0.1
SAME_ACQUISITION_S = 60.0
USUAL_WEIGHTING_MS_T = 60.0
"""Echo time × field strength of common SWI protocols (20 ms at 3 T, 40 ms at 1.5 T)."""


@dataclass(frozen=True)
class SeriesSelection:
    """The SWI to analyse with its phase, magnitude and mIP, and why they were chosen.

    Without a derived SWI, one is computed from `phase` and `magnitude`. A phase with two parts is computed from a real
    and an imaginary image. The mIP is named for the reader and never analysed. `t2star` is the T2*-weighted gradient
    echo of the study; if the profile accepts one and there is nothing better, it is used as `swi` and keeps its role.
    `no_phase` says why there is no phase.
    """

    swi: Series | None
    phase: Series | None
    magnitude: Series | None
    mip: Series | None
    why: str
    t2star: Series | None = None
    no_phase: str = ""

    @property
    def used(self) -> tuple[Series, ...]:
        """The series that are analysed: SWI, phase and magnitude, as available."""
        return tuple(series for series in (self.swi, self.phase, self.magnitude) if series is not None)

    def key(self, profile_digest: str, settings: Mapping[str, object] | None = None) -> str:
        """Key of an analysis of these images (:func:`pipeline.uids.job_key`); `settings` change its results too."""
        uids = (i.sop_instance_uid for series in self.used for leaf in series.leaves for i in leaf.instances)
        sign = self.phase.phase_sign if self.phase is not None else None
        return job_key(uids, profile_digest, {**({} if sign is None else {"phase_sign": sign}), **(settings or {})})

    @property
    def analysable(self) -> bool:
        """Whether there is an SWI, or the phase and magnitude to compute it from."""
        return self.swi is not None or (self.phase is not None and self.magnitude is not None)


def select_series(study: Study, *, t2star: bool = False) -> SeriesSelection:
    """Choose what to analyse: the best SWI of the study, then the phase and magnitude of the same acquisition.

    With `t2star`, a T2*-weighted gradient echo is used if there is no SWI and none can be computed.
    """
    by_role: dict[SeriesRole, list[Series]] = {role: [] for role in SeriesRole}
    for series in study.series:
        for leaf in series.leaves:
            by_role[leaf.role].append(leaf)
    by_role[SeriesRole.PHASE] += [phase for series in study.series for phase in _complex_phases(series)]
    phases, magnitudes = by_role[SeriesRole.PHASE], by_role[SeriesRole.MAGNITUDE]
    gradient_echo = _nearest(None, by_role[SeriesRole.T2STAR])
    swi = _best_swi(by_role[SeriesRole.SWI], phases)
    if swi is not None:
        phase, magnitude = _nearest(swi, phases), _nearest(swi, magnitudes)
        mip = _nearest_mip(swi, by_role[SeriesRole.MIP])
        why, no_phase = _why_swi(swi, phase, magnitude, by_role), "" if phase else _missing("phase", swi, phases)
        return SeriesSelection(swi, phase, magnitude, mip, why, gradient_echo, no_phase)
    phase, magnitude = _best_pair(phases, magnitudes)
    mip = _nearest_mip(phase or magnitude, by_role[SeriesRole.MIP])
    found = SeriesSelection(
        None, phase, magnitude, mip, _why_without_swi(phase, magnitude, gradient_echo, by_role), gradient_echo
    )
    if t2star and gradient_echo is not None and not found.analysable:
        why = f"no SWI series; {gradient_echo.label}, a T2*-weighted gradient echo, is used instead"
        return SeriesSelection(
            gradient_echo, None, None, mip, why, gradient_echo, "a T2*-weighted gradient echo is analysed without phase"
        )
    return found


def _complex_phases(series: Series) -> Iterator[Series]:
    """Phases that can be computed from the real and imaginary images of one series, one per echo."""
    parts: dict[str, list[Series]] = {"real": [], "imaginary": []}
    for leaf in series.leaves:
        if leaf.component is not None:
            parts[leaf.component].append(leaf)
    for real in parts["real"]:
        for imaginary in parts["imaginary"]:
            if real.echo_time_ms == imaginary.echo_time_ms and not objection(real, imaginary):
                why = "computed from the real and the imaginary part of a complex image"
                rule = f"{real.rule} + {imaginary.rule}"
                yield replace(real, role=SeriesRole.PHASE, rule=rule, why=why, component=None, parts=(real, imaginary))


@dataclass(frozen=True)
class Layout:
    """Where the frames of a series lie, as far as its headers say."""

    rows: int
    columns: int
    count: int
    space: str
    orientation: Vector | None
    spacing: Vector | None
    ends: tuple[Vector, Vector] | None
    even: bool

    @classmethod
    def of(cls, series: Series) -> Layout:
        """Read it from the frames of `series`."""
        instance, frame = series.frames[0]
        positions = [f.position for _, f in series.frames if f.position is not None]
        ends, even, count = None, True, len(series.frames)
        if frame.orientation is not None and len(positions) == len(series.frames):
            normal = np.cross(frame.orientation[:3], frame.orientation[3:])
            places = {round(float(np.dot(p, normal)), 3): p for p in positions}
            along = sorted(places)
            steps = np.diff(along)
            ends, count = (places[along[0]], places[along[-1]]), len(along)
            even = len(along) < 3 or bool(np.ptp(steps) <= 0.1 * np.median(steps) + 0.01)
        space = instance.frame_of_reference_uid
        return cls(instance.rows, instance.columns, count, space, frame.orientation, frame.spacing, ends, even)

    def objection(self, other: Layout) -> str:
        """Why the two are not on the same grid; empty if nothing speaks against it."""
        if self.space and other.space and self.space != other.space:
            return "another frame of reference"
        if (self.rows, self.columns) != (other.rows, other.columns):
            return f"{other.columns}×{other.rows} pixels, not {self.columns}×{self.rows}"
        if self.count != other.count:
            return f"{other.count} slices, not {self.count}"
        if _differ(self.spacing, other.spacing, GRID_TOLERANCE_MM / max(self.rows, self.columns, 1)):
            return "another pixel spacing"
        if _differ(self.orientation, other.orientation, 1e-3):
            return "another orientation"
        mine, theirs = self.ends or (None, None), other.ends or (None, None)
        if any(_differ(a, b, GRID_TOLERANCE_MM) for a, b in zip(mine, theirs, strict=True)):
            return "another position"
        return ""


def _differ(a: Vector | None, b: Vector | None, tolerance: float) -> bool:
    return a is not None and b is not None and any(abs(x - y) > tolerance for x, y in zip(a, b, strict=True))


def objection(series: Series, other: Series) -> str:
    """Why `other` cannot be used together with `series`; empty if nothing speaks against it."""
    apart = _seconds_apart(series, other)
    if apart is not None and apart > SAME_ACQUISITION_S:
        return f"acquired {apart:.0f} s apart"
    return Layout.of(series).objection(Layout.of(other))


def _seconds_apart(a: Series, b: Series) -> float | None:
    if a.acquisition_time is None or b.acquisition_time is None:
        return None
    return abs(a.acquisition_time - b.acquisition_time)


def _number_distance(a: Series, b: Series) -> int:
    """How far apart two series numbers are; GE and Philips number series derived from 7 as 700, from 1001 as 1101."""
    if a.series_number is None or b.series_number is None:
        return 1_000_000
    low, high = sorted((a.series_number, b.series_number))
    return min(high - low, abs(high // 100 - low))


def _tokens(series: Series) -> set[str]:
    return {token.upper() for token in series.frames[0][1].facts.get("tokens")}


def _weighting_error(series: Series) -> float:
    """How far the echo time is from the usual one for SWI at this field strength, ms·T."""
    if series.echo_time_ms is None:
        return 0.0
    return abs(series.echo_time_ms * (series.field_strength_t or 3.0) - USUAL_WEIGHTING_MS_T)


def _best_swi(swis: list[Series], phases: list[Series]) -> Series | None:
    most = max((Layout.of(series).count for series in swis), default=0)

    def preference(series: Series) -> tuple[float, ...]:
        layout = Layout.of(series)
        complete = layout.even and layout.count >= 0.8 * most
        has_phase = any(not objection(series, phase) for phase in phases)
        return (
            series.needs_confirmation,
            not complete,
            not has_phase,
            "MEAN" not in _tokens(series),
            _weighting_error(series),
            -(series.acquisition_time or 0),
            -(series.series_number or 0),
        )

    return min(swis, key=preference, default=None)


def _nearest(anchor: Series | None, candidates: list[Series]) -> Series | None:
    """The candidate that belongs to `anchor`: same echo, same series, time, normalised, nearest number."""
    if anchor is None:
        return candidates[-1] if candidates else None

    def distance(series: Series) -> tuple[float, ...]:
        echoes = (series.echo_time_ms, anchor.echo_time_ms)
        return (
            0.0 if None in echoes else abs((echoes[0] or 0) - (echoes[1] or 0)) // 0.5,
            series.needs_confirmation,
            bool(series.parts),
            series.series_instance_uid != anchor.series_instance_uid,
            (_seconds_apart(series, anchor) or 0) // 1,
            not (anchor.description and series.description.endswith(anchor.description)),
            "NORM" not in _tokens(series),
            _number_distance(series, anchor),
            series.series_number or 0,
        )

    return min((series for series in candidates if not objection(anchor, series)), key=distance, default=None)


def _nearest_mip(anchor: Series | None, mips: list[Series]) -> Series | None:
    if anchor is None:
        return mips[0] if mips else None
    spaces = {"", anchor.frame_of_reference_uid}
    near = [mip for mip in mips if mip.frame_of_reference_uid in spaces or not anchor.frame_of_reference_uid]
    return min(near, key=lambda mip: (_number_distance(mip, anchor), mip.series_number or 0), default=None)


def _best_pair(phases: list[Series], magnitudes: list[Series]) -> tuple[Series | None, Series | None]:
    """Pick the phase and magnitude of one acquisition, at the echo that suits SWI best."""
    pairs = [(p, m) for p, m in product(phases, magnitudes) if m is _nearest(p, magnitudes)]
    if not pairs:
        phases = [phase for phase in phases if not phase.parts]  # complex images of unknown origin
        return _nearest(None, phases), _nearest(None, magnitudes) if not phases else None
    return min(
        pairs,
        key=lambda pair: (
            pair[0].needs_confirmation + pair[1].needs_confirmation,
            _weighting_error(pair[0]),
            -(pair[0].acquisition_time or 0),
            -(pair[0].series_number or 0),
        ),
    )


def _why_swi(
    swi: Series, phase: Series | None, magnitude: Series | None, by_role: dict[SeriesRole, list[Series]]
) -> str:
    text = [f"{swi.label} is the SWI by rule {swi.rule!r}"]
    others = [series for series in by_role[SeriesRole.SWI] if series is not swi]
    if others:
        names = ", ".join(dict.fromkeys(series.label for series in others))
        text.append(f"preferred to {names} (complete, with phase, echo-combined, usual echo time, then the latest)")
    for name, found, role in (("phase", phase, SeriesRole.PHASE), ("magnitude", magnitude, SeriesRole.MAGNITUDE)):
        text.append(f"{name} from {found.label}" if found is not None else _missing(name, swi, by_role[role]))
    return "; ".join(text)


def _missing(name: str, swi: Series, candidates: list[Series]) -> str:
    """Why there is no phase or magnitude to go with the SWI."""
    refused = [f"{series.label}: {objection(swi, series)}" for series in candidates]
    return f"no {name} of the same acquisition ({'; '.join(refused[:3])})" if refused else f"no {name} in the study"


def _why_without_swi(
    phase: Series | None, magnitude: Series | None, t2star: Series | None, by_role: dict[SeriesRole, list[Series]]
) -> str:
    if phase is not None and magnitude is not None:
        return (
            f"no SWI series; the SWI is computed from the phase of {phase.label} and the magnitude of {magnitude.label}"
        )
    if phase is not None or magnitude is not None:
        label = phase.label if phase is not None else magnitude.label if magnitude is not None else ""
        missing = "magnitude" if phase is not None else "phase"
        return f"no SWI series; {label} has no {missing} image of the same acquisition"
    if t2star is not None:
        return f"no SWI series; {t2star.label} is a T2*-weighted gradient echo, which only some profiles accept"
    if by_role[SeriesRole.MIP]:
        return "no SWI series; a minimum intensity projection is never analysed"
    return "no SWI series: no image of the study is marked as susceptibility-weighted"
