"""When does a certificate of the settings expire? Asked for the log, the page and the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography import x509

from node.settings import Settings

WARN_BEFORE = timedelta(days=30)


@dataclass(frozen=True)
class CertificateExpiry:
    """A file of certificates, and when the first of them expires.

    Parameters
    ----------
    setting : str
        The setting that names it, such as ``destinations.pacs.certificate``.
    expires_at : datetime or None
        ``None`` if the file cannot be read as certificates.
    """

    setting: str
    path: Path
    expires_at: datetime | None

    def notice(self, now: datetime) -> str:
        """What to tell people; empty if there is nothing to tell."""
        file = f"The certificate {self.path} ({self.setting})"
        if self.expires_at is None:
            return f"{file} cannot be read; connections that need it fail."
        if self.expires_at - now > WARN_BEFORE:
            return ""
        day = f"{self.expires_at:%Y-%m-%d}"
        if self.expires_at <= now:
            return f"{file} expired on {day}; connections that need it fail. Replace the file; no restart is needed."
        days = (self.expires_at - now).days
        left = f"in {days} days" if days > 1 else "tomorrow" if days == 1 else "within a day"
        return f"{file} expires {left}, on {day}. Replace the file; no restart is needed."


def certificate_expiries(settings: Settings) -> list[CertificateExpiry]:
    """Every file of certificates that the settings name, in the order of the settings."""
    return [CertificateExpiry(setting, path, _expires_at(path)) for setting, path in _named(settings)]


def certificate_notices(settings: Settings, now: datetime | None = None) -> list[str]:
    """What to tell people about certificates that expire soon or are not readable."""
    now = now or datetime.now(UTC)
    return [text for expiry in certificate_expiries(settings) if (text := expiry.notice(now))]


def _named(settings: Settings) -> Iterator[tuple[str, Path]]:
    users: dict[str, Any] = {
        "receiver.tls": settings.receiver.tls,
        **{f"destinations.{name}": way for name, way in settings.destinations.items()},
        **{f"receiver.commitment.{peer.ae_title}": peer for peer in settings.receiver.commitment},
        "notices.webhook": settings.notices.webhook,
        "notices.email": settings.notices.email,
        "audit_repository": settings.audit_repository,
        **{f"{name}.dicom": pacs.dicom for name, pacs in settings.sources.items()},
        **{f"{name}.dicomweb": pacs.dicomweb for name, pacs in settings.sources.items()},
        "work_items": settings.work_items,
        "work_items.images": settings.work_items.images if settings.work_items is not None else None,
    }
    for user, part in users.items():
        for field in ("certificate", "ca_file"):
            if path := getattr(part, field, None):
                yield f"{user}.{field}", path


def _expires_at(path: Path) -> datetime | None:
    try:
        found = path.stat()
        return _read(path, found.st_mtime_ns, found.st_ino)
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=256)
def _read(path: Path, _modified: int, _inode: int) -> datetime:
    """The earliest end of validity in a file; read again when the file has changed."""
    return min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(path.read_bytes()))
