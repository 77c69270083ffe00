"""What colour has a microbleed? The same in the capture, the SEG and the pictures of the page."""

from __future__ import annotations

from typing import Final

from pipeline.findings import Certainty, Lesion, Trend

Colour = tuple[int, int, int]
COLOURS: Final[dict[Certainty, Colour]] = {  # distinguishable in colour blindness
    Certainty.DEFINITE: (255, 176, 59),
    Certainty.POSSIBLE: (92, 200, 255),
}
NEW_COLOURS: Final[dict[Certainty, Colour]] = {Certainty.DEFINITE: (255, 92, 120), Certainty.POSSIBLE: (206, 150, 255)}


def colour(lesion: Lesion) -> Colour:
    """By certainty; microbleeds that are new since the prior study have colours of their own."""
    return (NEW_COLOURS if lesion.trend is Trend.NEW else COLOURS)[lesion.certainty]
