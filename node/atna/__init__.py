"""What does an audit repository learn of what happens here? DICOM audit messages, sent by syslog (IHE ATNA)."""

from .sender import AuditSender

__all__ = ["AuditSender"]
