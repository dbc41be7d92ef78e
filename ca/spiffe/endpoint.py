"""The forms the address of a SPIFFE Workload Endpoint may take (SPIFFE_Workload_Endpoint.md section 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeAlias

from ca.errors import Malformed

LONGEST_SOCKET_PATH = 107
"""What Linux holds in a `sockaddr_un`, without the closing zero byte."""

_LONGEST_NAME = 253
_DNS_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.IGNORECASE)
_ONLY_DIGITS = re.compile(r"[0-9.]+")

_EXPECTED = "expected `unix:///path/to/socket` or `tcp://<ip address>:<port>`"


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A Unix socket by its absolute path."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """An address; a name only where `parse_broker` read it: nobody may redirect a workload by DNS."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


Endpoint: TypeAlias = UnixEndpoint | TcpEndpoint


def parse(text: str) -> Endpoint:
    """Read the address as it stands in `SPIFFE_ENDPOINT_SOCKET`.

    `unix` has an absolute path and nothing else, `tcp` an IP address and a port and nothing else.

    Raises:
        Malformed: any other form; the sentence says what was expected.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or len(text) > 1024 or not text.isascii() or not text.isprintable() or set(text) & set("?#%\\ "):
        raise Malformed(f"`{_short(text)}` is not a SPIFFE endpoint: {_EXPECTED}")
    if scheme == "unix":
        return _unix(rest, text)
    if scheme == "tcp" and rest.startswith("//"):
        return _tcp(rest[2:], text)
    raise Malformed(f"`{_short(text)}` is not a SPIFFE endpoint: {_EXPECTED}")


def parse_broker(text: str) -> Endpoint:
    """Read the address as it stands in `SPIFFE_BROKER_SOCKET` (SPIFFE_Broker_Endpoint.md section 4).

    As `parse`, but `tcp` may have a DNS name: both ends prove who they are, so nobody gains by another address.

    Raises:
        Malformed: any other form.
    """
    host, colon, port = text.removeprefix("tcp://").rpartition(":")
    if not text.startswith("tcp://") or not colon or len(host) > _LONGEST_NAME or not _DNS_NAME.fullmatch(host):
        return parse(text)
    if _ONLY_DIGITS.fullmatch(host):
        return parse(text)  # it can only be meant as an address
    return TcpEndpoint(host, parse(f"tcp://127.0.0.1:{port}").port)  # type: ignore[union-attr]  # it is one of those


def _unix(rest: str, text: str) -> UnixEndpoint:
    path = rest.removeprefix("//")
    if not path.startswith("/") or path.startswith("//") or path.endswith("/"):
        raise Malformed(f"`{_short(text)}` does not name a socket: expected `unix://` and an absolute path")
    if len(path) > LONGEST_SOCKET_PATH:
        raise Malformed(f"the path of a socket must not be longer than {LONGEST_SOCKET_PATH} bytes")
    return UnixEndpoint(path)


def _tcp(address: str, text: str) -> TcpEndpoint:
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host, version = host[1:-1], 6
    else:
        version = 4
    try:
        parsed = ip_address(host)
    except ValueError as error:
        raise Malformed(f"`{_short(text)}` has no IP address: {_EXPECTED}") from error
    if parsed.version != version or not colon:
        raise Malformed(f"`{_short(text)}` is not a SPIFFE endpoint: {_EXPECTED}")
    if not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 65536:
        raise Malformed(f"`{_short(text)}` has no port between 1 and 65535")
    return TcpEndpoint(str(parsed), int(port))


def _short(text: str) -> str:
    return text[:80].encode("unicode_escape").decode("ascii")
