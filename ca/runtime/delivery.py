"""When an answer has been taken: its last byte left this machine's buffers and the other one's kernel confirmed it.

HTTP has no word for it. The kernel knows: what the peer has not confirmed stands in the socket's send queue (on a Unix
socket: what it has not read). So an answer that never came out of the buffers, or whose reader was gone, is not taken.
What the process at the other end did with it nobody can see from here.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios

from ca.runtime.clock import Clock

_LOOK = 0.005


async def taken(transport: asyncio.Transport | None, clock: Clock, within: float) -> bool:
    """Wait until everything written to `transport` is with its reader; False when it left, or `within` seconds passed.

    Ask before anything else is written to it.
    """
    begun = clock.boot()
    while transport is not None and not transport.is_closing():
        if transport.get_write_buffer_size() == 0 and _unconfirmed(transport) == 0:
            return True
        if clock.boot() - begun >= within:
            return False
        await clock.sleep(_LOOK)
    return False


def _unconfirmed(transport: asyncio.Transport) -> int:
    """Bytes the kernel still keeps for the reader."""
    connected = transport.get_extra_info("socket")
    count = array.array("i", [0])
    try:
        fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, count)
    except OSError:
        return -1  # closed meanwhile: never taken
    return count[0]
