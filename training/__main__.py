"""``python -m training`` is ``cmbtrain``, where it is not installed."""

from .cli import main

raise SystemExit(main())
