"""What OpenSSL says of a certificate or of the other end, in one line with what to look at.

Its codes are precise and mute: "unable to get local issuer certificate" is a bundle that is old, "bad certificate" most
often a clock. The table is by the code with which we refuse the other end, and by the alert with which it refuses us;
in TLS 1.3 a client reads that alert only after its handshake (RFC 8446 4.4.2.4 and 6.2).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

_CODES: Mapping[int, str] = {
    9: "its SVID is younger than this machine's clock: one of the clocks is wrong",
    10: "its SVID was not rotated in time, or this machine's clock is ahead",
    18: "it shows a certificate of its own making and no SVID",
    19: "its authority is not in a bundle known here",
    20: "its authority is not in a bundle known here: the bundle is old, or that domain is not federated",
    24: "what signed its SVID is no authority",
    26: "its certificate is not made for this side of a connection",
    47: "its authority is constrained to names of another trust domain",
    62: "an SVID is for no host name: take the context from attestor.client",
}

_REASONS: Mapping[str, str] = {
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our SVID was not rotated in time, or the other end's clock is ahead",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the other end refuses our SVID: often its clock is behind our issuer's",
    "TLSV1_ALERT_UNKNOWN_CA": "the other end does not know our authority: its bundle is old, or not federated with us",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the other end wants a certificate made for this side of a connection",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the other end refuses our SVID: often a name it does not want",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our SVID was taken back",
    "TLSV1_ALERT_ACCESS_DENIED": "the other end knows this identity and does not want it",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the other end wants an SVID and was shown none",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has no SVID, or speaks no mutual TLS",
    "UNEXPECTED_EOF_WHILE_READING": "the other end closed without a word: its log says whether it refuses us",
    "WRONG_VERSION_NUMBER": "the other end speaks no TLS",
    "HTTP_REQUEST": "the other end speaks HTTP without TLS",
}


def reason_of(error: ssl.SSLError) -> str:
    """What went wrong, in OpenSSL's words and, where we know it, what to look at."""
    words = getattr(error, "verify_message", None) or (_named(error) or "unknown").lower().replace("_", " ")
    hint = hint_of(error)
    return words if hint is None else f"{words}; {hint}"


def hint_of(error: ssl.SSLError) -> str | None:
    """What to look at; None for what says nothing of who is at the other end."""
    return _CODES.get(getattr(error, "verify_code", 0)) or _REASONS.get(_named(error))


def _named(error: ssl.SSLError) -> str:
    """OpenSSL's name of what happened; some versions have none for an end that just closed."""
    closed = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return error.reason or ("UNEXPECTED_EOF_WHILE_READING" if isinstance(error, closed) else "")
