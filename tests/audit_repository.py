"""An audit repository of a test: a syslog server over TLS, and the schema that judges what it gets."""

from __future__ import annotations

import base64
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

SCHEMA = Path(__file__).with_name("audit_message.rng")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Event:
    """An audit message, as a repository reads it."""

    xml: bytes

    @property
    def root(self) -> Element:
        return fromstring(self.xml)

    @property
    def code(self) -> str:
        """EventID, and EventTypeCode behind a slash if there is one."""
        kinds = [code.get("csd-code", "") for code in self.root.iterfind("EventIdentification/*[@csd-code]")]
        return "/".join(kinds)

    @property
    def action(self) -> str:
        return self.root.find("EventIdentification").get("EventActionCode", "")  # type: ignore[union-attr]

    @property
    def outcome(self) -> str:
        return self.root.find("EventIdentification").get("EventOutcomeIndicator", "")  # type: ignore[union-attr]

    @property
    def description(self) -> str:
        return self.root.findtext("EventIdentification/EventOutcomeDescription", "")

    @property
    def participants(self) -> dict[str, str]:
        """UserID by role; a person without one is the ``user``."""
        found = {}
        for one in self.root.iterfind("ActiveParticipant"):
            role = one.find("RoleIDCode")
            requestor = "user" if one.get("UserIsRequestor") == "true" else "process"
            found[role.get("originalText", "") if role is not None else requestor] = one.get("UserID", "")
        return found

    @property
    def requestor(self) -> list[str]:
        return [one.get("UserID", "") for one in self.root.iterfind("ActiveParticipant[@UserIsRequestor='true']")]

    @property
    def objects(self) -> dict[str, str]:
        """ParticipantObjectID by the name of its kind."""
        return {
            one.find("ParticipantObjectIDTypeCode").get("originalText", ""): one.get("ParticipantObjectID", "")  # type: ignore[union-attr]
            for one in self.root.iterfind("ParticipantObjectIdentification")
        }

    @property
    def sop_classes(self) -> dict[str, int]:
        return {one.get("UID", ""): int(one.get("NumberOfInstances", "")) for one in self.root.iter("SOPClass")}

    @property
    def query(self) -> bytes:
        return base64.b64decode(self.root.findtext(".//ParticipantObjectQuery", ""))


def check_schema(events: Sequence[Event], folder: Path) -> None:
    """Check messages against the schema of the standard, with xmllint (Debian's libxml2-utils)."""
    assert events
    files = []
    for number, event in enumerate(events):
        files.append(folder / f"message-{number}.xml")
        files[-1].write_bytes(event.xml)
    done = subprocess.run(
        ["xmllint", "--noout", "--relaxng", str(SCHEMA), *map(str, files)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@dataclass
class Repository:
    """What a syslog server got, in order, as whole syslog messages."""

    port: int
    messages: list[bytes] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        return [Event(message.partition(BOM)[2]) for message in list(self.messages)]

    @property
    def codes(self) -> list[str]:
        return [event.code for event in self.events]


@contextmanager
def run_repository(
    context: ssl.SSLContext | None, port: int = 0, known: list[bytes] | None = None
) -> Iterator[Repository]:
    """Run a syslog server until the block ends.

    Parameters
    ----------
    context : ssl.SSLContext or None
        Of a TLS server; ``None``: plain TCP.
    known : list, optional
        Where the messages go, if there are some already.
    """
    listener = socket.create_server(("127.0.0.1", port))
    repository = Repository(listener.getsockname()[1], known if known is not None else [])

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.settimeout(30)
            with suppress(OSError, ValueError), plain:
                secure = context.wrap_socket(plain, server_side=True) if context is not None else plain
                with secure, secure.makefile("rb") as stream:
                    while (length := _length(stream)) is not None:
                        repository.messages.append(stream.read(length))
                    if isinstance(secure, ssl.SSLSocket):
                        secure.unwrap()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield repository
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


def _length(stream: object) -> int | None:
    """Read the length before a message (RFC 5425 4.3); ``None`` at the end."""
    digits = b""
    while re.fullmatch(rb"\d", character := stream.read(1)):  # type: ignore[attr-defined]
        digits += character
    if character not in (b"", b" "):
        raise ValueError("this is no syslog")
    return int(digits) if digits else None
