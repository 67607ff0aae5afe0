"""Whom we trust, and what a handshake that failed means to an operator. Nothing goes on without verification."""

import re
import ssl
from pathlib import Path

CA_FILE = "FLEETTICKETS_CA_FILE"
_MEANINGS = (
    (r"certificate has expired|not yet valid", "its certificate has expired or is not valid yet: renew it there"),
    (
        r"(hostname|ip address) mismatch|doesn't match|does not match host name",
        "its certificate is for another name: have {setting} use a name that the certificate holds",
    ),
    (
        r"certificate verify failed|self.signed certificate|unable to get (local )?issuer|certificate_verify_failed",
        "its certificate is not of a CA that is trusted here, or has expired: name the CA's file in {ca}",
    ),
    (
        r"wrong.version.number|record.layer.failure|packet.length|unexpected.eof|eof occurred|not support ssl",
        "no TLS is spoken there: see the port in {setting}, and that the server has TLS switched on",
    ),
    (r"\[ssl[:\]]|ssl error", "the TLS handshake failed: see what TLS the server of {setting} offers"),
)
"""What libraries say, most telling first, and what to do about it."""


def context(ca_file: Path | None) -> ssl.SSLContext:
    """A client's context that verifies certificate and name against the CAs of the file, or else the system's.

    Raises: OSError, for a file that is no PEM certificate.
    """
    return ssl.create_default_context(cafile=ca_file)


def explained(text: str, setting: str, ca: str = CA_FILE) -> str:
    """The error's text, with what to do before it where TLS is the reason. `setting` holds the address."""
    for pattern, meaning in _MEANINGS:
        if re.search(pattern, text, re.IGNORECASE):
            return f"{meaning.format(setting=setting, ca=ca)} ({text})"
    return text
