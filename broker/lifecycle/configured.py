"""The targets this broker works with: opened when they are configured, replaced whole, closed at the end.

`engines`, `targets` and `roles` are the very mappings `World` holds, so a target that is added while the broker runs is
there for the next request. A target that is taken out of the settings keeps its engine until the broker stops: what was
made there must still be ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from broker.engines import load
from broker.engines.protocol import Certifying, Checkable, Engine, Finding, Lent, OwnAccount, Rotating, Vault
from broker.errors import NotPossible
from broker.lifecycle import reconcile
from broker.lifecycle.borrowed import Borrowed
from broker.lifecycle.rotate import in_force
from broker.lifecycle.world import World
from broker.model.bounds import Bounds
from broker.model.role import Role
from broker.targets.target import Target, open_target
from ca.errors import Conflict, Malformed, NotFound, Problem, Unavailable
from ca.runtime import failpoint, log

_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One target as an operator wants it: `engine` is the settings value of its kind."""

    engine: Any
    roles: Mapping[str, Role]
    rotate_every: timedelta | None = None
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(slots=True)
class Configured:
    """What is configured now; made by `open_configured`."""

    lent: Lent
    _stack: AsyncExitStack = field(repr=False)
    engines: dict[str, Engine] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    rotate_every: dict[str, timedelta] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    """Roles that stand in the settings no more: nobody is given them, what was given of them lives (`reload.py`)."""
    known: dict[str, Configuration] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def become(self, wanted: Mapping[str, Configuration]) -> Sequence[str]:
        """Open what is new or changed, offer exactly the roles of `wanted`; answers the names that changed.

        Raises:
            Malformed: a role's settings are not of its engine; nothing has changed then.
        """
        async with self._turn:
            return await self._become(wanted)

    async def _become(self, wanted: Mapping[str, Configuration]) -> Sequence[str]:
        _refuse_shared(wanted)
        changed = [name for name, said in wanted.items() if self.known.get(name) != said]
        fresh = {
            name: self.engines[name] if self._is_same(name, wanted[name]) else await self._open(name, wanted[name])
            for name in changed
        }
        for name in changed:
            for role in wanted[name].roles.values():
                fresh[name].plan(role, "sj_00000000_probe")
            self._check_rotation(name, wanted[name], fresh[name])
        for name, engine in fresh.items():
            if name not in self.targets:
                opening = open_target(name, self.lent.clock, bounds=wanted[name].bounds)
                self.targets[name] = await self._stack.enter_async_context(opening)
            self.engines[name] = engine
        self.rotate_every.clear()
        self.rotate_every.update(
            {name: said.rotate_every for name, said in wanted.items() if said.rotate_every is not None}
        )
        self.roles.clear()
        for said in wanted.values():
            self.roles.update(said.roles)
        gone = [name for name in self.known if name not in wanted]
        self.known = dict(wanted)
        return sorted([*changed, *gone])

    def _is_same(self, name: str, said: Configuration) -> bool:
        """Whether only its roles are others."""
        before = self.known.get(name)
        return before is not None and before.engine == said.engine

    async def _open(self, name: str, said: Configuration) -> Engine:
        lent = replace(self.lent, target=name, rotating=partial(Borrowed, self.engines, self.targets))
        module = load(said.engine.kind)
        engine: Engine = await self._stack.enter_async_context(module.open_engine(said.engine, lent))
        if isinstance(engine, OwnAccount) and lent.vault is not None:
            await self._log_in(name, engine, lent.vault)
        return engine

    @staticmethod
    async def _log_in(name: str, engine: OwnAccount, vault: Vault) -> None:
        """With what was put in force by a rotation, which counts instead of what the settings name."""
        try:
            rotated = await vault.read(in_force(name, engine.account))
        except Problem as problem:  # this target alone: it can't be logged in to until that is mended
            _log.error("the password in force can't be read", target=name, error=problem)
            return
        if rotated is not None:
            engine.log_in_with(rotated)

    def _check_rotation(self, name: str, said: Configuration, engine: Engine) -> None:
        if said.rotate_every is None:
            return
        if not (isinstance(engine, Rotating) and isinstance(engine, OwnAccount)):
            raise Malformed(f"the target `{name}` can't have `rotate_every`: its kind `{engine.kind}` can't rotate")
        if self.lent.vault is None:
            raise Malformed(
                f"the target `{name}` can't have `rotate_every`: the broker has no sealing key (`keys.seal`)"
            )


_LOGIN = ("kind", "management", "host", "port", "user")
"""Settings that say whom we log in as, and where."""


def _refuse_shared(wanted: Mapping[str, Configuration]) -> None:
    """A rotation at one target would lock every other out that logs in with the same account. Raises Malformed."""
    rotated = {name: said for name, said in wanted.items() if said.rotate_every and hasattr(said.engine, "user")}
    for name, said in rotated.items():
        for other, beside in wanted.items():
            if other != name and _login(beside.engine) == _login(said.engine):
                raise Malformed(
                    f"the target `{name}` can't have `rotate_every`: `{other}` logs in with the same account,"
                    " give each an account of its own"
                )


def _login(engine: object) -> tuple[object, ...]:
    return tuple(getattr(engine, key, None) for key in _LOGIN)


@asynccontextmanager
async def open_configured(lent: Lent) -> AsyncIterator[Configured]:
    """Nothing yet; left only when every call under way has ended."""
    async with AsyncExitStack() as stack:
        yield Configured(lent, stack)


async def check(world: World, target: str) -> Sequence[Finding]:
    """Prove that a target is set up right: made, logged in, ended, with a probe principal.

    Raises:
        NotFound: no such target.
    """
    engine = _known(world, target)
    whose = await _whose(world, target)
    if not isinstance(engine, Checkable) or not all(one.well for one in whose):
        return whose  # nothing is tried where somebody else works
    roles = [role for role in world.roles.values() if role.target == target]
    failpoint.reach("configured.check.before")
    findings = await engine.check(roles, world.prefix)
    failpoint.reach("configured.check.after")
    since = await reconcile.quarantined(world, target)
    waits = () if since is None else (_waits(target, since),)
    return (*whose, *waits, *findings)


async def _whose(world: World, target: str) -> Sequence[Finding]:
    """Whether the target carries our claim: another installation's is refused here as for a grant (traps 19)."""
    try:
        found = await reconcile.claim(world, target)
    except Conflict as conflict:
        fix = "use a target of its own, or have its owner remove the claim if that installation is no more"
        return (Finding(name="claim", well=False, detail=str(conflict), fix=fix),)
    except Unavailable:
        return ()  # the check itself says what stands in the way
    return () if found is None else (Finding(name="claim", well=True, detail="it is this installation's"),)


def _waits(target: str, since: datetime) -> Finding:
    detail = f"the store was restored or promoted at {since:%Y-%m-%d %H:%M} UTC: nothing unknown is destroyed here"
    return Finding(name="quarantine", well=False, detail=detail, fix=f"sojourn target adopt {target}")


async def authority(world: World, target: str) -> str:
    """What the owner of a target must install, so that it believes what we sign.

    Raises:
        NotFound: no such target.
        NotPossible: nothing is signed for it.
    """
    engine = _known(world, target)
    if not isinstance(engine, Certifying):
        raise NotPossible(
            f"nothing is signed for the target `{target}`: its kind `{engine.kind}` knows no certificates"
        )
    return await engine.authority()


def _known(world: World, target: str) -> Engine:
    engine = world.engines.get(target)
    if engine is None:
        raise NotFound(f"there is no target `{target[:60]}`")
    return engine
