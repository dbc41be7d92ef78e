"""A guest that speaks AMQP 0-9-1 over a plain socket, step by step; nothing of ours is needed to use this file.

guest = Guest(host, port)
guest.authenticate(name, password)          # False: refused
guest.enter("/")                            # False: refused
guest.declare("orders")                     # False: not permitted
guest.answers()                             # whether the connection lives
"""

from __future__ import annotations

import contextlib
import socket
import struct
from dataclasses import dataclass, field

_GUARD = 30.0
_START, _START_OK, _TUNE, _TUNE_OK = 0x000A000A, 0x000A000B, 0x000A001E, 0x000A001F
_OPEN, _OPEN_OK, _CLOSE = 0x000A0028, 0x000A0029, 0x000A0032
_CHANNEL_OPEN, _CHANNEL_OPEN_OK, _CHANNEL_CLOSE = 0x0014000A, 0x0014000B, 0x00140028
_DECLARE, _DECLARE_OK = 0x0032000A, 0x0032000B
_CAPABILITIES = b"\x1cauthentication_failure_closet\x01"
_PROPERTIES = b"\x0ccapabilitiesF" + struct.pack(">I", len(_CAPABILITIES)) + _CAPABILITIES
"""A refusal is said at once; without it the server is silent for three seconds and hangs up."""


@dataclass
class Guest:
    """One connection; what the server refuses is False, whatever else it does is an error."""

    host: str
    port: int
    channel: int = 0
    tuned: bytes = b""
    socket: socket.socket = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.socket = socket.create_connection((self.host, self.port), _GUARD)

    def authenticate(self, name: str, password: str) -> bool:
        """Up to the server's offer of limits."""
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        assert self._next()[0] == _START
        response = f"\0{name}\0{password}".encode()
        arguments = _long(_PROPERTIES) + b"\x05PLAIN" + _long(response) + b"\x05en_US"
        self._send(0, _START_OK, arguments)
        method, self.tuned = self._next()
        return method == _TUNE

    def enter(self, vhost: str) -> bool:
        """Open the virtual host."""
        self._send(0, _TUNE_OK, self.tuned[:6] + b"\0\0")
        self._send(0, _OPEN, bytes([len(vhost)]) + vhost.encode() + b"\0\0")
        return self._next()[0] == _OPEN_OK

    def answers(self) -> bool:
        """Open a further channel: only a living connection can."""
        self.channel += 1
        self._send(self.channel, _CHANNEL_OPEN, b"\0")
        return self._next()[0] == _CHANNEL_OPEN_OK

    def declare(self, queue: str) -> bool:
        """Make a queue of that name, which goes when this connection does."""
        if not self.answers():
            return False
        name = queue.encode()
        self._send(self.channel, _DECLARE, b"\0\0" + bytes([len(name)]) + name + b"\x04" + struct.pack(">I", 0))
        method, _ = self._next()
        assert method in {_DECLARE_OK, _CHANNEL_CLOSE, 0}
        return method == _DECLARE_OK

    def leave(self) -> None:
        """Hang up."""
        self.socket.close()

    def _send(self, channel: int, method: int, arguments: bytes) -> None:
        payload = struct.pack(">I", method) + arguments
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(struct.pack(">BHI", 1, channel, len(payload)) + payload + b"\xce")

    def _next(self) -> tuple[int, bytes]:
        """The next method and its arguments; 0 when the server hung up or closes."""
        head = self._read(7)
        if len(head) < 7:
            return 0, b""
        kind, _, size = struct.unpack(">BHI", head)
        payload = self._read(size + 1)
        if kind != 1:
            return self._next()
        method = int.from_bytes(payload[:4], "big")
        return (0, b"") if method == _CLOSE else (method, payload[4:-1])

    def _read(self, size: int) -> bytes:
        content = b""
        with contextlib.suppress(ConnectionError):
            while len(content) < size and (more := self.socket.recv(size - len(content))):
                content += more
        return content


def _long(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value
