"""Targets are read again: what is new holds at once, and nothing that lives ends by a file (traps 26).

A role that was taken out while secrets of it are out, or a target that moved to another place, would end them: nobody
could renew or take them back any more. So that part is *held*: the role is given to nobody anew, what was given lives
as before, and an operator is told. It comes into force by itself when the last such secret is gone; an operator who
confirms it ends them now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from broker.lifecycle import exclusive, withdraw
from broker.lifecycle.configured import Configuration, Configured
from broker.lifecycle.world import World
from broker.model.ids import LeaseId
from broker.model.lease import CloseReason
from broker.store import leases
from ca.errors import Problem
from ca.runtime import log

_log = log.get(__name__)

Wanted = Mapping[str, Configuration]

_PLACE = (
    "kind", "host", "port", "database", "vhost", "management", "endpoint", "region", "issuer", "token_endpoint",
    "client_id", "account", "target",
)  # fmt: skip
"""Settings of an engine that say where its target is; with another one of these it is another target."""

_PARTS = ("nodes", "replicas", "standbys", "revocations")
"""Settings that list where else what is made there can be used; one that goes from the list is not looked at any more.
"""

_AT_ONCE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a reload would end: so many secrets of one role, of so many tasks."""

    target: str
    role: str
    leases: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What a reload did: the targets that changed, what is held, and how many secrets a confirmation is ending."""

    changed: Sequence[str]
    held: Sequence[Holding] = ()
    ending: int = 0


def _uncounted(_outcome: str) -> None:
    """Nobody counts."""


@dataclass(slots=True)
class Reloading:
    """What stands in the settings, against what is out."""

    world: World
    configured: Configured
    read: Callable[[], Wanted]
    count: Callable[[str], None] = _uncounted
    held: Sequence[Holding] = ()
    _wanted: Wanted = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def again(self, confirmed_by: str | None = None) -> Reloaded:
        """Read the settings and bring them into force, as far as nothing ends; all of them when an operator confirms.

        Raises:
            BadSettings, Malformed: what stands there can't be meant; nothing changed.
        """
        async with self._turn:
            try:
                changed = await self._apply(self.read())
            except Problem:
                self.count("refused")
                raise
            self.count("held" if self.held else "taken")
            if self.held and confirmed_by is None:
                words = ", ".join(f"{one.leases} of {one.role}" for one in self.held)
                _log.warning("a reload would end secrets and is held: sojourn target reload --confirm", secrets=words)
                return Reloaded(changed=changed, held=self.held)
            ending = 0
            for one in self.held if confirmed_by is not None else ():
                ending += await self._end(one, confirmed_by or "")
            return Reloaded(changed=changed, held=self.held, ending=ending)

    async def tick(self, *_: object) -> None:
        """Let what is held come into force as far as what stood in its way is gone."""
        if not self.held:
            return
        async with self._turn:
            changed = await self._apply(self._wanted)
            if changed:
                _log.info("a held reload came into force", changed=", ".join(changed))

    async def _apply(self, wanted: Wanted) -> Sequence[str]:
        """Take `wanted` over but for what would end something. Raises Malformed."""
        losing = self._losing(wanted)
        self.configured.leaving.update(role for roles in losing.values() for role in roles)
        held = [one for target, roles in losing.items() for one in await self._out(target, roles)]
        merged, leaving = dict(wanted), {one.role for one in held}
        for target in {one.target for one in held}:
            merged[target] = self._with_held(target, wanted.get(target), leaving)
        try:
            changed = await self.configured.become(merged)
        except BaseException:
            self.configured.leaving.intersection_update(one.role for one in self.held)
            raise
        self.configured.leaving.intersection_update(leaving)
        self.world.claimed.difference_update(changed)  # it may be another server now
        self.held, self._wanted = tuple(held), wanted
        return changed

    def _losing(self, wanted: Wanted) -> Mapping[str, frozenset[str]]:
        """The roles that would not be there any more, by target: those taken out, and all of a target that moved.

        What another target lends through one that moves would be taken back at a place where it never was.
        """
        found: dict[str, frozenset[str]] = {}
        for target, said in self.configured.known.items():
            then = wanted.get(target)
            gone = set(said.roles) - set(() if then is None else then.roles)
            if then is None or has_moved(said.engine, then.engine):
                gone = set(said.roles) | self._through(target)
            if gone:
                found[target] = frozenset(gone)
        return found

    def _through(self, target: str) -> set[str]:
        """The roles of other targets that lend what is at this one."""
        roles = self.world.roles.values()
        return {role.full_name for role in roles if target in exclusive.beneath(self.world, role)[1:]}

    async def _out(self, target: str, roles: frozenset[str]) -> Sequence[Holding]:
        found: list[Holding] = []
        for place in sorted({_target_of(role) for role in roles}):
            counted = await self.world.database.read(lambda tx, at=place: leases.out_by_role(tx, at))  # type: ignore[misc]
            found += [
                Holding(target=target, role=role, leases=many, tasks=tasks)
                for role, many, tasks in counted
                if role in roles
            ]
        return found

    def _with_held(self, target: str, wanted: Configuration | None, leaving: set[str]) -> Configuration:
        """A target as it must stay: moved or gone as it was, else as it is wanted with the roles that are held."""
        known = self.configured.known[target]
        kept = {name: role for name, role in known.roles.items() if name in leaving}
        if wanted is None or has_moved(known.engine, wanted.engine):
            return replace(known, roles=kept)
        return replace(wanted, roles={**kept, **wanted.roles})

    async def _end(self, held: Holding, actor: str) -> int:
        ended, after = 0, LeaseId("")
        while page := await self.world.database.read(
            lambda tx, after=after: leases.active_of_role(tx, _target_of(held.role), held.role, after, _AT_ONCE)  # type: ignore[misc]
        ):
            now = self.world.clock.now()
            begun = (withdraw.begin(self.world, one, CloseReason.OPERATOR, now, actor=actor) for one in page)
            await asyncio.gather(*begun)
            ended, after = ended + len(page), page[-1]
        return ended


def has_moved(before: object, after: object) -> bool:
    """Whether the settings of an engine name another place, or one of several less."""
    if any(getattr(before, name, None) != getattr(after, name, None) for name in _PLACE):
        return True
    return any(set(getattr(before, name, ())) - set(getattr(after, name, ())) for name in _PARTS)


def _target_of(role: str) -> str:
    return role.partition("/")[0]
