"""What a gRPC call that failed stands for: the one table by which clients of ours read a status."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from ca.errors import Conflict, Denied, Exhausted, Malformed, NotFound, Problem, Stale, Unauthenticated, Unavailable


class Unsupported(Malformed):
    """The other end doesn't offer this call."""

    code = "unsupported"


class Unreachable(Unavailable):
    """Nothing listens there, or the connection broke."""

    code = "unreachable"


_PROBLEMS: dict[Status, type[Problem]] = {
    Status.INVALID_ARGUMENT: Malformed,
    Status.UNIMPLEMENTED: Unsupported,
    Status.PERMISSION_DENIED: Denied,
    Status.UNAUTHENTICATED: Unauthenticated,
    Status.NOT_FOUND: NotFound,
    Status.ALREADY_EXISTS: Conflict,
    Status.FAILED_PRECONDITION: Conflict,
    Status.ABORTED: Stale,
    Status.RESOURCE_EXHAUSTED: Exhausted,
}


def _take_back() -> None:
    """Undo the cancellation by which grpclib ended a wait on a lost connection; it turns it into an error and goes on.

    Left standing it makes the next `asyncio.timeout` of this task leak a cancellation (Python before 3.11.3), and a
    link that is to be held for ever would end without a word.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        task.uncancel()


@contextmanager
def answers_from(whom: str) -> Iterator[None]:
    """Turn what a gRPC call raises into the Problem it stands for; `whom` is named where nobody answered."""
    try:
        yield
    except GRPCError as error:
        kind = _PROBLEMS.get(error.status, Unavailable)
        raise kind(error.message or f"{whom} answered {error.status.name.lower()}") from error
    except (StreamTerminatedError, ProtocolError) as error:
        _take_back()
        raise Unreachable(f"the connection to {whom} broke") from error
    except OSError as error:  # nothing there, refused, or a handshake that one end refused
        reason = error.__cause__ if isinstance(error.__cause__, Problem) else (error.strerror or error)
        raise Unreachable(f"can't reach {whom}: {reason}") from error
