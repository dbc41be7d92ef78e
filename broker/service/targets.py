"""The systems secrets are made in: listed, checked, read again; for operators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from broker.lifecycle import configured, reconcile
from broker.lifecycle import rotate as rotation
from broker.lifecycle.reload import Reloaded
from broker.model.caller import Verb
from broker.model.lease import IDENTITY
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.store import strangers
from ca.errors import NotFound

Reload = Callable[[str | None], Awaitable[Reloaded]]
"""Read the settings' targets again, confirmed by an operator or not. A bad file changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One thing a check looked at."""

    name: str
    well: bool
    detail: str
    fix: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A target as the broker meets it."""

    name: str
    engine: str
    down: bool
    claimed: bool
    roles: tuple[str, ...]
    leaving: tuple[str, ...]
    foreign: str | None = None


def listed(gate: Gate) -> Sequence[Standing]:
    """Every target that an operator configured, by name."""
    world = gate.world
    return [
        Standing(
            name=name,
            engine=world.engines[name].kind,
            down=target.breaker.is_open,
            claimed=name in world.claimed,
            roles=tuple(sorted(role.full_name for role in world.roles.values() if role.target == name)),
            foreign=world.foreign.get(name),
            leaving=tuple(sorted(name for name in world.leaving if world.roles[name].target == target.name)),
        )
        for name, target in sorted(world.targets.items())
        if world.engines[name].kind != IDENTITY
    ]


async def check(gate: Gate, asked: Asked, target: str) -> Sequence[Found]:
    """Prove a target with a probe principal. Raises Denied, NotFound."""
    asked.demand(Verb.MANAGE_TARGETS)
    found = await configured.check(gate.world, target)
    return [Found(name=one.name, well=one.well, detail=one.detail, fix=one.fix) for one in found]


async def adopt(gate: Gate, asked: Asked, target: str, *, dry_run: bool) -> Sequence[str]:
    """End a target's quarantine, or only look; answers the principals there that no lease knows of.

    Raises:
        Denied, NotFound: the caller may not; no such target.
        Conflict: it belongs to another installation.
    """
    asked.demand(Verb.MANAGE_TARGETS)
    if target not in gate.world.targets:
        raise NotFound(f"there is no target `{target[:60]}`")
    if dry_run:
        return sorted(await gate.world.database.read(lambda tx: strangers.all_of(tx, target)))
    return await gate.world.finish(reconcile.adopt(gate.world, target, str(asked.caller), asked.now))


async def authority(gate: Gate, asked: Asked, target: str) -> str:
    """What a target's owner installs to believe what we sign. Raises Denied, NotFound, NotPossible, Unavailable."""
    asked.demand(Verb.MANAGE_TARGETS)
    return await configured.authority(gate.world, target)


async def rotate(gate: Gate, asked: Asked, target: str) -> tuple[str, int]:
    """Give the account we log in as another password; whose, and how often that was done.

    Finished even when whoever asked goes away.

    Raises:
        Denied, NotFound: the caller may not; no such target.
        NotPossible: its kind can't.
        Unavailable: nothing rests here, or it is not finished yet and gone on with by itself.
    """
    asked.demand(Verb.MANAGE_TARGETS)
    world = gate.world
    account = rotation.own(world, target).account
    times = await world.finish(rotation.rotate(world, target, asked.now, actor=str(asked.caller)))
    return account, times or 0


async def forget_rotation(gate: Gate, asked: Asked, target: str) -> None:
    """Let what the settings name count again. Raises Denied, NotFound, NotPossible, Unavailable."""
    asked.demand(Verb.MANAGE_TARGETS)
    await rotation.forget(gate.world, target, asked.now, actor=str(asked.caller))


async def read_again(asked: Asked, reload: Reload, *, confirm: bool) -> Reloaded:
    """Read the targets' settings again; what would end secrets is held unless it is confirmed.

    Raises:
        Denied: the operator may not manage targets, or confirms and may not revoke.
        BadSettings, Malformed: what stands there can't be meant.
    """
    asked.demand(Verb.MANAGE_TARGETS)
    if confirm:
        asked.demand(Verb.REVOKE_LEASES)
    return await reload(str(asked.caller) if confirm else None)
