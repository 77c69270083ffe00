"""By which rules are series recognised: those that the package ships, or a site's own?"""

from __future__ import annotations

from pipeline.read.recognition import RecognitionRules, load_rules

from .settings import Settings


def recognition(settings: Settings) -> RecognitionRules:
    """Read the rules for what a series is: the site's own before those in the package.

    They are read once a process, so that all its studies are judged alike.

    Raises
    ------
    InputError
        Naming the file and the place in it.
    """
    return load_rules(*([settings.recognition_file] if settings.recognition_file else []))
