"""Is everything that the node needs in order? `cmbnode doctor`: what was checked, what is wrong, what to do."""

from __future__ import annotations

from .checkup import Checkup, Verdict, examine

__all__ = ["Checkup", "Verdict", "examine"]
