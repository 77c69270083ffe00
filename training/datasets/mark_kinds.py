"""What can a mark be? A microbleed, or one of the kinds of things that are none."""

from __future__ import annotations

BLEED = "bleed"
NULL = "null"
"""An insertion that changes nothing: a place where nothing may be found."""
VEIN = "vein"
"""A place where a vein looks like a microbleed."""
REJECTED = "rejected"
"""What the detector took for a microbleed and a reader did not: no microbleed, whatever else it is."""
MISTAKE = "mistake"
"""A place where the detector that a training starts from is wrong: drawn more often, and no target."""
IN_TABLES = (BLEED, "calcification", VEIN, "cavernoma", "iron", "other")
"""What the column `kind` of a table of coordinates may say."""
