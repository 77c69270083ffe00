"""What does a worklist manager know of the node's work? Work items by UPS-RS: created, claimed, kept up to date."""

from .performer import WorkItemPerformer

__all__ = ["WorkItemPerformer"]
