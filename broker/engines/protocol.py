"""What an engine is: the hands by which one kind of target makes and unmakes a principal.

The law of an engine:

* A principal's name is known before it exists (`plan` is pure), so it can be written down first and found by anyone.
* `create` either certainly happened (it answers), certainly did not (`TargetDown`, any other `Problem`), or it is not
  known (`OutcomeUnknown`). It carries its own deadline, judged by the target's clock where the statement is executed: a
  call that was frozen on its way is refused when it thaws (traps 8). It never meets an existing principal politely.
* After `occupy` the name is taken by something that can't log in, or by the principal an earlier call made: both ways
  certain, and any later `create` of it fails.
* `end_access` returns only when nobody can use the principal any more *and that was looked at*; it is repeated until it
  does. Absent is success; twice is once. `clean_up` leaves nothing; absent is success; twice is once.
* No secret leaves an engine except in what `create` and `replace` answer; none is sent to a target in clear, none
  stands in an exception.
* Calls are never cancelled half-way by whoever waits for them (`broker/targets`).
* `making` says how a create meets a name that is taken. `CREATE_ONLY` refuses it, which is what makes `occupy` certain.
  `UPSERT` can't: a create that arrives late makes, or makes anew, what it finds, so nothing is certain before that
  create's own deadline has passed; until then the ending is repeated, and the sweep finds what came after all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Protocol, cast, runtime_checkable

from broker.model.lease import Handle
from broker.model.role import Guarantee, Role
from ca.keys.protocol import KeyStore
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret


class Making(StrEnum):
    """How a create meets a name that is taken."""

    CREATE_ONLY = "create-only"
    UPSERT = "upsert"


class Vault(Protocol):
    """What must rest, sealed under a key outside the store: static values, refresh tokens, passwords of a rotation."""

    async def read(self, name: str) -> Secret | None:
        """The newest version of one value; None when there is none. Raises SealBroken, Unavailable."""

    async def newest(self, name: str) -> tuple[int, Secret] | None:
        """The same with its number."""

    async def write(self, name: str, value: Secret) -> int:
        """Write a further version, durable when this answers; its number, from 1. Raises Unavailable."""

    async def forget(self, name: str) -> None:
        """Remove every version of it. Raises Unavailable."""


class Tokens(Protocol):
    """The broker's own identity as JWT-SVIDs."""

    async def token(self, audience: str) -> Secret:
        """A JWT-SVID for one audience, fresh enough to be used now. Raises Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """What the broker's process lends its engines; what it has none of is None, and an engine that needs it says so.

    `keys` are the broker's own (`ssh-ca`, `postgres-client-ca`, …), never an identity's. `target` is the name of the
    one target the engine is opened for. `rotating` gives the power of another target's engine to change passwords, for
    accounts that are lent and not made; it raises NotFound or NotPossible where there is none.
    """

    clock: Clock
    target: str = ""
    vault: Vault | None = None
    keys: KeyStore | None = None
    tokens: Tokens | None = None
    rotating: Callable[[str], Rotating] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What the agent is handed: plain facts (`host`, `username`) and secrets (`password`)."""

    fields: Mapping[str, str | int]
    secret: Mapping[str, Secret] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessEnded:
    """What ending access found: how many sessions were cut, and on how many endpoints it was verified."""

    sessions_cut: int
    endpoints: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing a check looked at: whether it is well, and what the target's owner can do if it is not."""

    name: str
    well: bool
    detail: str
    fix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a target says about whose it is; `incarnation` is that of the store that claimed or adopted it last."""

    installation: str
    incarnation: str


class Engine(Protocol):
    """One target of one kind."""

    @property
    def kind(self) -> str:
        """The name in `ENGINES`."""

    @property
    def making(self) -> Making:
        """How a create meets a name that is taken."""

    def plan(self, role: Role, name: str) -> Handle:
        """What would be made for `role` under `name`; pure. Raises Malformed when the role's settings are not ours."""

    def guarantee(self, role: Role) -> Guarantee:
        """What taking it back will mean."""

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        """Make the principal; its new access ends at `until` by itself, and nothing is made after `deadline`.

        Raises:
            TargetDown: nothing was sent.
            NotPossible: it can't be, as things are set up; nothing was sent.
            OutcomeUnknown: it was sent and not answered.
            Problem: the target refused, nothing was made.
        """

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:
        """Give the principal a new secret; the old one is dead and what was opened with it is cut.

        Raises as `create`; NotFound when the principal is gone.
        """

    async def renew(self, handle: Handle, until: datetime) -> None:
        """Move the end of new access. Raises as `create`; NotFound when the principal is gone."""

    async def occupy(self, handle: Handle) -> None:
        """Take the name, or learn that it is taken. Raises TargetDown or OutcomeUnknown: not certain yet."""

    async def end_access(self, handle: Handle) -> AccessEnded:
        """Disable, cut, and look until nothing is left. Raises NotYet, TargetDown, OutcomeUnknown: not verified."""

    async def clean_up(self, handle: Handle) -> None:
        """Remove what is left of it. Raises NotYet, TargetDown, OutcomeUnknown: to be repeated."""


@runtime_checkable
class Listing(Protocol):
    """The power to tell which principals there are; without it a target can't be swept."""

    async def names(self, prefix: str) -> Sequence[str]:
        """The names that begin with `prefix`, sorted. Raises TargetDown."""


@runtime_checkable
class Claimable(Protocol):
    """The power to carry the name of the one installation that may work here (traps 19)."""

    async def claim(self, installation: str, incarnation: str) -> Claim:
        """Claim the target if nobody has, and say whose it is.

        An existing claim of this installation is not touched: its incarnation tells whether the store was restored.

        Raises:
            Conflict: it belongs to another installation.
            TargetDown: it can't be asked.
        """

    async def adopt(self, installation: str, incarnation: str) -> None:
        """Renew our own claim with this incarnation, after an operator looked at what is there."""


@runtime_checkable
class FixedEnd(Protocol):
    """The power to make a secret whose end is written into it, as into a certificate.

    Its lease ends then and no renewal moves it; whoever still needs one asks for another. `replace` may raise
    NotPossible, when the old secret can't be killed without the principal.
    """

    def end_is_fixed(self, handle: Handle) -> bool:
        """Whether that is so for this principal; pure."""


@runtime_checkable
class ShortestLife(Protocol):
    """The power to say that the target gives nothing that ends sooner, and takes nothing back.

    The lease of such a secret lasts at least so long, also past its task's deadline: it must not close before the
    secret has ended. The engine's guarantee says the seconds.
    """

    def shortest(self, handle: Handle) -> timedelta:
        """How long what `handle` names lives at least; pure."""


@cache
def has(kind: type, power: type) -> bool:
    """Whether engines of the class `kind` have a power; to ask a protocol anew each time costs as much as a statement.

    Not for `OwnAccount`: only an object tells whether it has what is no method.
    """
    return issubclass(kind, power)


def end_is_fixed(engine: Engine, handle: Handle) -> bool:
    """Whether the end of what `handle` names is written into its secret."""
    return has(type(engine), FixedEnd) and cast("FixedEnd", engine).end_is_fixed(handle)


def shortest_life(engine: Engine, handle: Handle) -> timedelta:
    """How long what `handle` names lives at least; nothing where its end can be set as near as wanted."""
    return cast("ShortestLife", engine).shortest(handle) if has(type(engine), ShortestLife) else timedelta(0)


@runtime_checkable
class Certifying(Protocol):
    """The power to sign what a target believes: its owner must be given the authority once."""

    async def authority(self) -> str:
        """What the target's owner installs, as text (PEM, a line of OpenSSH).

        Raises:
            NotPossible: this target's settings use none.
            Unavailable: the key can't be had now.
        """


@runtime_checkable
class Checkable(Protocol):
    """The power to prove that a target is set up right."""

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """Look at everything a grant and an ending will need, and prove it with a probe principal."""


@runtime_checkable
class Rotating(Protocol):
    """The power to change the password of an account that is no principal of ours: a legacy one, or the one we use."""

    async def change_password(self, account: str, password: Secret) -> None:
        """Let `password` be the only one of `account`; the same again is no error.

        Raises:
            NotFound: there is no such account.
            TargetDown, OutcomeUnknown: it is not known which one is in force; `opens` tells.
        """

    async def opens(self, account: str, password: Secret) -> bool:
        """Whether `password` logs in as `account`, tried by a login. Raises TargetDown."""

    async def cut_sessions(self, account: str) -> int:
        """End every session of `account` and look until none is left; how many. Raises NotYet, TargetDown."""


@runtime_checkable
class OwnAccount(Protocol):
    """The power to go on working when the password of the account we log in with ourselves was changed."""

    @property
    def account(self) -> str:
        """Whom we log in as; what `Rotating` is told to rotate it."""

    def log_in_with(self, password: Secret | None) -> None:
        """Log in with this one from now on instead of the settings' own; connections made before are given up.

        None: with the settings' own again.
        """


@runtime_checkable
class Borrowing(Protocol):
    """What works through another target: that one, too, must carry our claim before anything is given."""

    def beneath(self, role: Role) -> str | None:
        """The name of that target, if this role has one; pure. Raises Malformed."""
