"""What can go wrong between an agent and a secret; grows from `ca.errors`.

Each of these stands below the failure of `ca.errors` that says what its caller can do:

    NotFound ─── UnknownRole            no such role, or not one the caller may know of
    Denied ───── Refused                a policy (or the absence of one) said no; `policies` and `decision` say which
    Conflict ─── NotPossible            the state machine has no such move
             ├── AlreadyAcknowledged    the secret was handed over and received; it is shown once
             └── KeyReused              an idempotency key came back with another body
    Exhausted ── QuotaReached           so much is out, or was given lately: `quota` says which bound was reached
    Stale ────── Fenced                 the task changed or ended since the decision
    Unavailable  TargetDown             the target did not answer in time: nothing is known to have happened
             ├── OutcomeUnknown         the call was sent and not answered: it may have happened
             ├── NotYet                 access could not be verified to have ended; it is tried again
             ├── UnderWay               the same request is being answered at this moment, here or elsewhere
             ├── CheckedOut             somebody else has it, for as long as their lease lives
             └── ClockUntrusted         wall and boot time disagree: nothing is given until they agree
"""

from __future__ import annotations

from ca.errors import Conflict, Denied, Exhausted, NotFound, Stale, Unavailable


class UnknownRole(NotFound):
    """No such role."""

    code = "unknown-role"


class Refused(Denied):
    """A decision that denies."""

    code = "refused"


class NotPossible(Conflict):
    """The state machine has no such move."""

    code = "not-possible"


class AlreadyAcknowledged(Conflict):
    """A secret is shown once."""

    code = "already-acknowledged"


class KeyReused(Conflict):
    """An idempotency key belongs to one body."""

    code = "idempotency-key-reused"


class QuotaReached(Exhausted):
    """A bound of live leases or of grants was reached; nothing was made, and later there may be room."""

    code = "quota-reached"
    retryable = True


class Fenced(Stale):
    """The task ended or changed since the decision was made."""

    code = "fenced"


class TargetDown(Unavailable):
    """The target can't be reached; nothing was sent."""

    code = "target-down"


class OutcomeUnknown(Unavailable):
    """The call was sent and its answer never came."""

    code = "outcome-unknown"


class UnderWay(Unavailable):
    """The same request is being answered at this moment: ask again."""

    code = "under-way"


class NotYet(Unavailable):
    """Access could not yet be verified to have ended."""

    code = "not-yet"


class CheckedOut(Unavailable):
    """Only one may have it at a time, and somebody has."""

    code = "checked-out"


class ClockUntrusted(Unavailable):
    """Grants stop while wall and boot time disagree."""

    code = "clock-untrusted"
