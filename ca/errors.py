"""The tree of failures every package grows from.

    Problem                what went wrong, in one sentence that is safe to show
    ├── Malformed          the caller sent something that can't be read: mend it, don't repeat it
    ├── Unauthenticated    the caller did not prove who it is
    ├── Denied             known, understood, and not allowed
    ├── NotFound           no such thing, or not yours to see
    ├── Conflict           the thing exists already, or in another form
    ├── Stale              somebody was faster: read again, then decide again
    ├── Exhausted          a limit of size, rate or number was reached
    └── Unavailable        a part this one stands on does not answer: try again later

A class is named for what the *caller can do*. `code` is stable and meant for machines; `str(error)` is one
lower-case sentence without a full stop that never holds a secret; what only the log may know is `__cause__`.
A misuse by our own code is a `RuntimeError` or an `AssertionError`, never a `Problem`.
"""

from __future__ import annotations

from typing import ClassVar


class Problem(Exception):
    """Something a caller should hear about.

    `details` are further safe facts for machines (`{"key": "deadline"}`); they are shown with the sentence.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: str | float | bool | None) -> None:
        super().__init__(message)
        self.details = details


class Malformed(Problem):
    """The request, file or document can't be read; repeating it can't help."""

    code = "malformed"


class Unauthenticated(Problem):
    """The caller did not prove who it is."""

    code = "unauthenticated"


class Denied(Problem):
    """The caller is known and may not do this."""

    code = "denied"


class NotFound(Problem):
    """There is no such thing, or the caller may not know of it."""

    code = "not-found"


class Conflict(Problem):
    """The request contradicts what is already there."""

    code = "conflict"


class Stale(Problem):
    """The caller acted on a version that has been replaced; reading again helps."""

    code = "stale"


class Exhausted(Problem):
    """A limit was reached."""

    code = "exhausted"


class Unavailable(Problem):
    """Something this one depends on does not answer; the same request may succeed later."""

    code = "unavailable"
    retryable = True
