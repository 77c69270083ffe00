"""Whom does the node believe, and as whom does it show itself, inside TLS?"""

from __future__ import annotations

import ssl

from node.destination_settings import Hl7Destination, WebService
from node.destinations.base import Unreachable


def tls_context(settings: Hl7Destination | WebService) -> ssl.SSLContext:
    """Make the TLS context that the settings describe.

    Raises
    ------
    Unreachable
        If a file named there holds no certificate or key.
    """
    name = settings.ca_file
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
        if settings.certificate is not None:
            name = settings.certificate_key or settings.certificate
            context.load_cert_chain(settings.certificate, settings.certificate_key)
    except (ssl.SSLError, OSError) as error:
        raise Unreachable(f"{settings.address}: {name} cannot be used as a certificate or key: {error}") from error
    if not settings.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
