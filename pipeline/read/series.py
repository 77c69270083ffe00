"""What does a series contain? Its role, and its parts if magnitude, phase or several echoes share one series."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal

from .headers import Frame, Instance
from .recognition import RecognitionRules, RoleDecision, SeriesRole

USED = (SeriesRole.SWI, SeriesRole.PHASE, SeriesRole.MAGNITUDE)


@dataclass(frozen=True)
class Series:
    """Images of one series, their role, and why.

    `parts` is empty unless the series holds several kinds of image (magnitude and phase interleaved, several echoes):
    then each part is a series with the same UID and only its own frames, and the parts are used.
    `phase_sign` is set by a rule of the site; `component` is the part of a complex image.
    """

    series_instance_uid: str
    study_instance_uid: str
    role: SeriesRole
    rule: str
    needs_confirmation: bool
    why: str
    description: str
    series_number: int | None
    modality: str
    instances: tuple[Instance, ...]
    parts: tuple[Series, ...] = ()
    phase_sign: Literal[1, -1] | None = None
    component: Literal["real", "imaginary"] | None = None

    @property
    def leaves(self) -> tuple[Series, ...]:
        """The parts, or the series itself when it has none."""
        return self.parts or (self,)

    @property
    def label(self) -> str:
        """The name in messages: ``series 11 (SWI_Images)``."""
        number = "without a number" if self.series_number is None else str(self.series_number)
        return f"series {number} ({self.description})" if self.description else f"series {number}"

    @cached_property
    def frames(self) -> tuple[tuple[Instance, Frame], ...]:
        """Every frame with the file it is in."""
        return tuple((instance, frame) for instance in self.instances for frame in instance.frames)

    @property
    def vendor(self) -> str:
        """Short name of the manufacturer."""
        return self.instances[0].vendor

    @property
    def frame_of_reference_uid(self) -> str:
        """Frame of reference of the first instance; empty if it names none."""
        return self.instances[0].frame_of_reference_uid

    @property
    def echo_time_ms(self) -> float | None:
        """Echo time of the first frame."""
        return self.frames[0][1].echo_time_ms if self.frames else None

    @property
    def field_strength_t(self) -> float | None:
        """Magnetic field strength, tesla."""
        return self.instances[0].field_strength_t

    @property
    def acquisition_time(self) -> float | None:
        """Earliest acquisition time, in seconds on a continuous scale."""
        return min((t for i in self.instances if (t := i.acquisition_time) is not None), default=None)


@dataclass(frozen=True)
class Study:
    """The series of one study, in order of their numbers."""

    study_instance_uid: str
    series: tuple[Series, ...]


def make_study(uid: str, instances: list[Instance], rules: RecognitionRules) -> Study:
    """Group the instances of one study into series and judge each."""
    judge = _Judge(instances, rules)
    by_series: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        by_series[instance.series_instance_uid].append(instance)
    series = [_series(sorted(group, key=_instance_order), judge) for group in by_series.values()]
    unnumbered = float("inf")
    order = sorted(
        series, key=lambda s: (unnumbered if s.series_number is None else s.series_number, s.series_instance_uid)
    )
    return Study(uid, tuple(order))


def _instance_order(instance: Instance) -> tuple[float, str]:
    return (float("inf") if instance.instance_number is None else instance.instance_number, str(instance.path))


class _Judge:
    """The role of each frame of a study: by its own header first, then by what else the study contains."""

    def __init__(self, instances: Iterable[Instance], rules: RecognitionRules) -> None:
        self._judge = lru_cache(maxsize=None)(rules.judge)
        self._grids: set[Hashable] = set()
        self._spaces: set[str] = set()
        for instance in instances:
            for frame in instance.frames:
                role = self._judge(frame.facts).role
                if role in USED:
                    self._spaces.add(instance.frame_of_reference_uid)
                if role == SeriesRole.SWI:
                    self._grids.add(_protocol(instance, frame))
        self._grids.discard(None)

    def __call__(self, instance: Instance, frame: Frame) -> RoleDecision:
        context = {}
        if _protocol(instance, frame) in self._grids:
            context["kin"] = ("swi",)
        space = instance.frame_of_reference_uid
        if self._spaces and (not space or space in self._spaces or "" in self._spaces):
            context["frame_kin"] = ("swi",)
        return self._judge(frame.facts.extended(context) if context else frame.facts)


def _protocol(instance: Instance, frame: Frame) -> Hashable:
    """What images of one acquisition share: grid, frame of reference and timing; ``None`` if too little is known."""
    timing = (frame.echo_time_ms, instance.repetition_time_ms, instance.flip_angle)
    space = instance.frame_of_reference_uid
    if not space or frame.spacing is None or frame.orientation is None or None in timing:
        return None
    numbers = (*timing, *frame.spacing, *frame.orientation)
    return (space, instance.rows, instance.columns, *(round(v, 2) for v in numbers if v is not None))


Piece = tuple[Instance, Frame, RoleDecision]


def _series(instances: list[Instance], judge: _Judge) -> Series:
    pieces = [(instance, frame, judge(instance, frame)) for instance in instances for frame in instance.frames]
    groups = _split(pieces)
    parts = tuple(_leaf(group) for group in groups)
    if len(parts) == 1:
        return parts[0]
    role, why = _common_role(parts)
    used = [part for part in parts if part.role in USED] or list(parts)
    return replace(
        _leaf(pieces),
        role=role,
        rule=" + ".join(dict.fromkeys(part.rule for part in used)),
        needs_confirmation=any(part.needs_confirmation for part in used),
        why=why,
        parts=parts,
    )


def _leaf(pieces: list[Piece]) -> Series:
    frames: dict[str, list[Frame]] = defaultdict(list)
    for instance, frame, _ in pieces:
        frames[instance.sop_instance_uid].append(frame)
    instances = {instance.sop_instance_uid: instance for instance, _, _ in pieces}
    first, verdict = pieces[0][0], pieces[0][2]
    return Series(
        series_instance_uid=first.series_instance_uid,
        study_instance_uid=first.study_instance_uid,
        role=verdict.role,
        rule=verdict.rule,
        needs_confirmation=any(v.needs_confirmation for _, _, v in pieces),
        why=verdict.why,
        description=first.description,
        series_number=first.series_number,
        modality=first.modality,
        instances=tuple(replace(instance, frames=tuple(frames[uid])) for uid, instance in instances.items()),
        phase_sign=verdict.phase_sign,
        component=verdict.component,
    )


def _split(pieces: list[Piece]) -> list[list[Piece]]:
    """Split a series by role and echo; then, where positions still repeat, by Image Type and acquisition."""

    def role(piece: Piece) -> Hashable:
        return piece[2].role, piece[2].component

    def echo(piece: Piece) -> Hashable:
        time = piece[1].echo_time_ms
        return None if time is None or not _is_used(piece[2]) else round(time, 1)

    groups = [sub for group in _by(pieces, role) for sub in _by(group, echo)]
    for key in (_tokens, _acquisition):
        groups = [sub for group in groups for sub in (_by(group, key) if _repeats(group) else [group])]
    return groups


def _is_used(verdict: RoleDecision) -> bool:
    return verdict.role in USED or verdict.component is not None


def _by(pieces: list[Piece], key: Callable[[Piece], Hashable]) -> Iterator[list[Piece]]:
    groups: dict[Hashable, list[Piece]] = defaultdict(list)
    for piece in pieces:
        groups[key(piece)].append(piece)
    yield from groups.values()


def _tokens(piece: Piece) -> Hashable:
    return piece[1].facts.get("tokens")


def _acquisition(piece: Piece) -> Hashable:
    return piece[0].acquisition_number


def _repeats(pieces: list[Piece]) -> bool:
    if not _is_used(pieces[0][2]):
        return False
    places = [tuple(round(v, 2) for v in frame.position) for _, frame, _ in pieces if frame.position]
    return len(set(places)) < len(places)


_NAMES = {SeriesRole.SWI: "SWI", SeriesRole.PHASE: "phase", SeriesRole.MAGNITUDE: "magnitude"}


def _common_role(parts: tuple[Series, ...]) -> tuple[SeriesRole, str]:
    roles = {part.role for part in parts}
    counts = {_NAMES[role]: sum(len(p.frames) for p in parts if p.role == role) for role in USED if role in roles}
    echoes = len({part.echo_time_ms for part in parts})
    holds = " and ".join(f"{count} {name}" for name, count in counts.items())
    if SeriesRole.PHASE in roles and roles & {SeriesRole.SWI, SeriesRole.MAGNITUDE}:
        return SeriesRole.MIXED_COMPLEX, f"holds {holds} images in one series; each kind is used as such"
    for role in (*USED, SeriesRole.MIP, SeriesRole.T2STAR):
        if role in roles:
            best = next(part for part in parts if part.role == role)
            detail = f" at {echoes} echo times" if len(roles) == 1 and echoes > 1 else ", and other images"
            return role, f"{best.why} (holds {holds} images{detail})" if counts else best.why
    return parts[0].role, parts[0].why
