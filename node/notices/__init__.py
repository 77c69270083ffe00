"""Who is told when something happens? Messages by webhook and e-mail, about what the ledger has noted."""

from .notifier import Notifier

__all__ = ["Notifier"]
