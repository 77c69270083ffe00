"""``python -m training`` is ``cmbtrain``, where it is not installed."""

from training.cli import main

raise SystemExit(main())
