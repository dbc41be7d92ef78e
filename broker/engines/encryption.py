"""How a connection to a target is protected: `off`, `require`, `verify`; left out it is what is safe without a word.

Whoever stands on the way to a server that isn't verified may ask for our password in clear, so `off` follows by itself
only where nothing passes a wire.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Encryption = Literal["off", "require", "verify"]


def chosen(said: Encryption | None, hosts: Iterable[str]) -> Encryption:
    """`said`, or `off` where every host is a loopback address and `verify` elsewhere."""
    if said is not None:
        return said
    return "off" if all(map(_is_loopback, hosts)) else "verify"


def context(encryption: Encryption, authorities: Path | None) -> ssl.SSLContext | None:
    """What a client speaks TLS by; None for none. `authorities` is a PEM file, left out the system's."""
    if encryption == "off":
        return None
    made = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
    if encryption == "require":
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def _is_loopback(host: str) -> bool:
    """Only an address: a name, `localhost` too, is whatever a resolver makes of it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
