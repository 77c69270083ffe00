"""How is a message sent? By HTTP POST of signed JSON, or by e-mail."""

from __future__ import annotations

import hashlib
import hmac
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import formatdate
from typing import Protocol

import httpx

from node.settings import Settings
from node.settings.notices import EmailSettings, WebhookSettings
from node.text import one_line
from node.tls.contexts import client_context

from .message import Message

SIGNATURE = "X-CMBNode-Signature"


class NotSentError(Exception):
    """A message could not be sent; the text says why."""


class Channel(Protocol):
    """A way of telling."""

    @property
    def address(self) -> str:
        """The other system, for the log."""

    def send(self, message: Message) -> None:
        """Send a message; raises :class:`NotSentError`."""

    def check(self) -> str:
        """See whether the other system answers, without telling anybody anything; raises :class:`NotSentError`."""


class Webhook:
    """HTTP POST of JSON. An answer 2xx means that it was taken."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings

    @property
    def address(self) -> str:
        """Scheme and host; the rest of the address may be a token."""
        return self._settings.address

    def send(self, message: Message) -> None:
        """Send a message once; a redirect is not followed."""
        content = message.to_json()
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "cmb-node"}
        if self._settings.secret is not None:
            headers[SIGNATURE] = f"sha256={sign(self._settings.secret.get_secret_value(), content)}"
        answer = self._ask("POST", headers, content)
        if not answer.is_success:
            raise NotSentError(f"answers {answer.status_code} {answer.reason_phrase}".rstrip())

    def check(self) -> str:
        """Ask for the address with OPTIONS; that it answers at all is enough."""
        return f"answers {self._ask('OPTIONS', {}, b'').status_code}"

    def _ask(self, method: str, headers: dict[str, str], content: bytes) -> httpx.Response:
        settings = self._settings
        try:
            with httpx.Client(
                verify=client_context(settings) if settings.url.startswith("https:") else False,
                timeout=settings.timeout_s,
                trust_env=False,
            ) as client:
                return client.request(method, settings.url, headers=headers, content=content)
        except (httpx.HTTPError, ssl.SSLError) as error:  # its text may quote the address
            raise NotSentError(f"cannot be reached ({type(error).__name__})") from None


def sign(secret: str, content: bytes) -> str:
    """HMAC-SHA-256 of the content, in hexadecimal.

    >>> sign("It's a Secret to Everybody", b"Hello, World!")[:16]
    '757107ea0eb2509f'
    """
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


class Email:
    """SMTP, with STARTTLS or TLS."""

    def __init__(self, settings: EmailSettings) -> None:
        self._settings = settings

    @property
    def address(self) -> str:
        """The mail server."""
        return self._settings.address

    def send(self, message: Message) -> None:
        """Send a mail to all recipients; it counts as sent if the server takes it for one of them."""
        settings = self._settings
        mail = EmailMessage()
        mail["Subject"] = message.subject
        mail["From"], mail["To"] = settings.sender, ", ".join(settings.recipients)
        mail["Date"] = formatdate(localtime=True)
        mail["Message-ID"] = f"<{message.id}@{settings.sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic answers
        mail.set_content(message.text + "\n")
        with self._connect() as server:
            server.send_message(mail)

    def check(self) -> str:
        """Sign in at the mail server."""
        with self._connect() as server:
            code, _ = server.noop()
        return f"answers {code}" + (" and takes the password" if self._settings.username else "")

    @contextmanager
    def _connect(self) -> Iterator[smtplib.SMTP]:
        settings = self._settings
        try:
            if settings.encryption == "tls":
                context = client_context(settings)
                server: smtplib.SMTP = smtplib.SMTP_SSL(
                    settings.host, settings.port, timeout=settings.timeout_s, context=context
                )
            else:
                server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)
            with server:
                if settings.encryption == "starttls":
                    server.starttls(context=client_context(settings))
                if settings.username is not None and settings.password is not None:
                    server.login(settings.username, settings.password.get_secret_value())
                yield server
        except smtplib.SMTPResponseException as error:
            words = error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else ""
            raise NotSentError(one_line(f"answers {error.smtp_code} {words}")) from None
        except smtplib.SMTPRecipientsRefused as error:
            raise NotSentError(f"refuses {', '.join(sorted(error.recipients))}") from None
        except (OSError, smtplib.SMTPException) as error:
            raise NotSentError(one_line(f"cannot be reached ({error})")) from None


def open_channels(settings: Settings) -> dict[str, Channel]:
    """The channels of the settings, by name; connects to nothing yet."""
    channels: dict[str, Channel] = {}
    if (webhook := settings.notices.webhook) is not None:
        channels["webhook"] = Webhook(webhook)
    if (email := settings.notices.email) is not None:
        channels["email"] = Email(email)
    return channels
