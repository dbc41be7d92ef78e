"""What one process holds: its instance, what it was found to be, its identities and leaves.

Keys are made here and never leave but to the process they were made for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from attestor.methods.workload.proc import CallerGone
from attestor.node_agent.change import Change
from attestor.node_agent.enclosures import Enclosure
from attestor.node_agent.peer import Findings, ProcessName, exited
from attestor.selector import Selectors
from attestor.wire.attestation import Attestation, Identity
from ca.spiffe.id import SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """An X.509-SVID as it is handed out; `authority` is the key id of who signed it."""

    chain: bytes
    key: bytes = field(repr=False)
    authority: bytes
    serial: int
    not_before: datetime
    not_after: datetime

    @property
    def half_life(self) -> datetime:
        """When it is due to be replaced."""
        return self.not_before + (self.not_after - self.not_before) / 2

    def is_fresh(self, now: datetime) -> bool:
        """Before half its life; one of a time to come, after the clock was set back, is not: no peer would have it."""
        return self.not_before <= now < self.half_life


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A JWT-SVID kept for the same question asked again."""

    text: str = field(repr=False)
    made_at: datetime
    half_life: datetime

    def is_fresh(self, now: datetime) -> bool:
        """As for a leaf."""
        return self.made_at <= now < self.half_life


@dataclass(frozen=True, slots=True, kw_only=True)
class Wit:
    """A WIT-SVID with the private JWK its `cnf` names; `authority` is the `kid` of who signed it."""

    text: str = field(repr=False)
    key: str = field(repr=False)
    authority: str
    made_at: datetime
    half_life: datetime
    not_after: datetime

    def is_fresh(self, now: datetime) -> bool:
        """As for a leaf."""
        return self.made_at <= now < self.half_life


@dataclass(slots=True, kw_only=True, eq=False)
class Held:
    """One process and what it holds.

    Its instance is its `own`, or that of the `enclosure` its identities are bound to: a container, pod or unit.
    `counter` is that of the first live set that names the instance: 0 until it is journalled. `users` are the calls it
    has open, `wit_users` those that wait for WIT-SVIDs and `list_users` those that want revocation lists; while
    `wits_owed` a WIT-SVID is to be asked for once more. `barred` is the server's word that this instance gets nothing
    more; while it is `pending` its identities changed and their certificates are on the way. `inherited` are the
    selectors it has by its ancestors. `version` names what its identities were resolved by. `findings` is None after a
    restart until the process calls again.
    """

    own: str
    name: ProcessName
    pidfd: int = field(repr=False)
    own_counter: int = 0
    own_barred: bool = False
    enclosure: Enclosure | None = None
    uid: int | None = None
    findings: Findings | None = None
    identities: tuple[Identity, ...] = ()
    version: str = ""
    leaves: dict[SpiffeId, Leaf] = field(default_factory=dict, repr=False)
    tokens: dict[tuple[SpiffeId, tuple[str, ...]], Token] = field(default_factory=dict, repr=False)
    wits: dict[SpiffeId, Wit] = field(default_factory=dict, repr=False)
    ancestors: tuple[str, ...] = ()
    inherited: Selectors = frozenset()
    users: int = 0
    wit_users: int = 0
    wits_owed: bool = False
    list_users: int = 0
    pending: bool = False
    change: Change = field(default_factory=Change, repr=False)
    admitting: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    signing_wits: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    @property
    def instance(self) -> str:
        """In whose name its leaves are."""
        return self.enclosure.instance if self.enclosure else self.own

    @property
    def counter(self) -> int:
        """Of the first live set that names the instance."""
        return self.enclosure.counter if self.enclosure else self.own_counter

    @property
    def barred(self) -> bool:
        """Whether the instance gets nothing more."""
        return self.enclosure.barred if self.enclosure else self.own_barred

    def is_alive(self) -> bool:
        """Whether its process still runs."""
        return self.pidfd >= 0 and not exited(self.pidfd)

    def check(self) -> None:
        """Raise CallerGone unless its process is alive: asked before every message to it."""
        if not self.is_alive():
            raise CallerGone(f"the process {self.name.pid} that opened this connection has ended")

    def attestation(self) -> Attestation:
        """What the server is told about it. It must have been looked at."""
        assert self.findings is not None
        return Attestation(
            instance=self.instance,
            selectors=self.findings.selectors | self.inherited,
            strength=self.findings.strength,
            counter=self.counter,
            ancestors=self.ancestors,
        )

    def forget(self) -> None:
        """It became another program, or another user's: what the former one was given is nobody's until asked again.

        Whoever cut us off from the server would otherwise keep a former root's identity for what came after it.
        """
        self.identities, self.pending = (), True
        self.strip()

    def leave(self) -> None:
        """Its enclosure has ended, and it goes on elsewhere: it is nobody until it is looked at again."""
        self.forget()
        self.enclosure, self.findings, self.pending = None, None, False
        self.change.announce()

    def strip(self) -> None:
        """Drop every credential."""
        self.leaves.clear()
        self.tokens.clear()
        self.wits.clear()

    def keep_only(self, identities: tuple[Identity, ...]) -> bool:
        """Hold these identities and nothing of any other; whether one of those held before is gone."""
        mine = {identity.id for identity in identities}
        gone = {identity.id for identity in self.identities} - mine
        self.identities = identities
        self.tokens = {key: token for key, token in self.tokens.items() if key[0] in mine}
        for spiffe_id in self.leaves.keys() - mine:
            del self.leaves[spiffe_id]
        for spiffe_id in self.wits.keys() - mine:
            del self.wits[spiffe_id]
        return bool(gone)

    def entitled(self, id: SpiffeId) -> Identity | None:  # noqa: A002 - the word of the standard
        """The identity `id`, if it is one of its own."""
        return next((one for one in self.identities if one.id == id), None)


def hinted(identities: Sequence[Identity]) -> Iterator[tuple[Identity, str]]:
    """Each identity with its hint; the second of the same one goes without (WL-10)."""
    told: set[str] = set()
    for identity in identities:
        yield identity, "" if identity.hint in told else identity.hint
        told.add(identity.hint)
