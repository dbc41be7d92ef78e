"""The password we log in with at a target ourselves is given another one, and none is lost on the way (C9).

    intend      the candidate is durable, sealed                       a pending one is gone on with, never replaced
    change      it is set at the target, unless it opens already       repeated until it opens: rolled forward only
    adopt       it is the one in force, durable; the former is destroyed

Killed anywhere, whoever runs next finds the candidate and goes on: it is tried by a login first, so nothing is done
twice, and a change that arrives late sets the same password. From the first rotation on, the value in the vault
counts instead of the reference in the settings, until an operator says otherwise (`forget`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from broker.engines.passwords import new_password
from broker.engines.protocol import OwnAccount, Rotating
from broker.errors import NotPossible, NotYet
from broker.lifecycle import told
from broker.lifecycle.world import World
from broker.model.receipt import Receipt, ReceiptKind
from broker.store import receipts, sealed
from broker.store.sealed import Version
from broker.targets.target import Target
from ca.errors import NotFound, Stale, Unavailable
from ca.runtime import failpoint
from ca.runtime.database import Transaction
from ca.runtime.secret import Secret
from ca.seal import Seal


def in_force(target: str, account: str) -> str:
    """What the password that counts instead of the settings' is called where it rests."""
    return f"own/{target}/{account}"


@dataclass(frozen=True, slots=True)
class Own:
    """Our account at one target, and what its passwords rest under."""

    engine: Any
    calls: Target
    target: str
    account: str
    seal: Seal

    @property
    def current(self) -> str:
        """The one in force."""
        return in_force(self.target, self.account)

    @property
    def candidate(self) -> str:
        """The one that is to be."""
        return f"next/{self.target}/{self.account}"


def own(world: World, target: str) -> Own:
    """Raises NotFound: no such target; NotPossible: its kind can't; Unavailable: nothing rests here."""
    engine = world.engines.get(target)
    if engine is None:
        raise NotFound(f"there is no target `{target[:60]}`")
    if not (isinstance(engine, Rotating) and isinstance(engine, OwnAccount)):
        raise NotPossible(f"the target `{target}` is of the kind `{engine.kind}`, whose own password can't be rotated")
    if world.seal is None:
        raise Unavailable("nothing rests here: the broker has no sealing key (`keys.seal`)")
    return Own(engine, world.targets[target], target, engine.account, world.seal)


async def rotate(
    world: World, target: str, now: datetime, *, actor: str | None = None, every: timedelta | None = None
) -> int | None:
    """Rotate once; how often that was done. With `every` only if the last time is that long ago: None when it is not.

    Raises:
        NotFound, NotPossible, Unavailable: see `own`.
        NotYet, TargetDown, OutcomeUnknown: not finished; it is gone on with by itself.
    """
    mine, password = own(world, target), Secret(new_password())

    async def unit(tx: Transaction) -> bool:
        if await sealed.newest(tx, mine.seal, mine.candidate) is not None:
            return True
        before = next(iter(await sealed.versions(tx, mine.current)), None)
        if every is not None and before is not None and now < before.made_at + every:
            return False
        await sealed.add(tx, mine.seal, mine.candidate, password, now)
        await receipts.append(tx, world.broker, _receipt(world, mine, now, actor=actor, done="begun"))
        return True

    failpoint.reach("rotate.intend.before")
    wanted = await world.database.write(unit)
    failpoint.reach("rotate.intend.after")
    return await carry_on(world, target, now) if wanted else None


async def carry_on(world: World, target: str, now: datetime) -> int | None:
    """Finish what was begun, whoever began it; None when nothing was. Raises as `rotate`."""
    mine = own(world, target)
    pending = await world.database.read(lambda tx: sealed.newest(tx, mine.seal, mine.candidate))
    if pending is None:
        return None
    password = pending[1]
    if not await _opens(mine, password):
        await _change(world, mine, password, now)
        if not await _opens(mine, password):
            raise NotYet(f"the new password of `{mine.account}` at `{target}` does not log in")
    mine.engine.log_in_with(password)
    failpoint.reach("rotate.cut.before")
    cut = await mine.calls.call(mine.engine.cut_sessions(mine.account), ending=True)
    failpoint.reach("rotate.cut.after")
    return await _adopt(world, mine, password, now, cut)


async def _opens(mine: Own, password: Secret) -> bool:
    failpoint.reach("rotate.opens.before")
    opened: bool = await mine.calls.call(mine.engine.opens(mine.account, password), ending=True)
    failpoint.reach("rotate.opens.after")
    return opened


async def _change(world: World, mine: Own, password: Secret, now: datetime) -> None:
    try:
        failpoint.reach("rotate.change.before")
        await mine.calls.call(mine.engine.change_password(mine.account, password), ending=True)
        failpoint.reach("rotate.change.after")
    except NotPossible as refused:  # before anything was sent: such a target can't be rotated
        await _give_up(world, mine, now, str(refused))
        raise


async def _give_up(world: World, mine: Own, now: datetime, why: str) -> None:
    async def unit(tx: Transaction) -> None:
        await sealed.forget(tx, mine.candidate)
        await receipts.append(tx, world.broker, _receipt(world, mine, now, done="given up", why=why))

    failpoint.reach("rotate.give_up.before")
    await world.database.write(unit, ending=True)
    failpoint.reach("rotate.give_up.after")


async def _adopt(world: World, mine: Own, password: Secret, now: datetime, cut: int) -> int | None:
    async def unit(tx: Transaction) -> int:
        pending = await sealed.newest(tx, mine.seal, mine.candidate)
        if pending is None or pending[1] != password:
            raise Stale("another broker finished it")
        former = await sealed.versions(tx, mine.current)
        number = await sealed.add(tx, mine.seal, mine.current, password, now)
        for one in former:
            await sealed.destroy(tx, mine.current, one.number, now)
        await sealed.forget(tx, mine.candidate)
        said = _receipt(world, mine, now, done="rotated", times=number, sessions_cut=cut)
        await receipts.append(tx, world.broker, said)
        return number

    try:
        failpoint.reach("rotate.adopt.before")
        number = await world.database.write(unit, ending=True)
        failpoint.reach("rotate.adopt.after")
    except Stale:
        return await refresh(world, mine.target)
    return number


async def refresh(world: World, target: str) -> int | None:
    """Log in with what another broker has put in force; its number. None: what the settings name is in force."""
    mine = own(world, target)
    found = await world.database.read(lambda tx: sealed.newest(tx, mine.seal, mine.current))
    mine.engine.log_in_with(None if found is None else found[1])
    return None if found is None else found[0]


async def last(world: World, target: str) -> Version | None:
    """What is in force instead of the settings' own, without the password."""
    mine = own(world, target)
    return next(iter(await world.database.read(lambda tx: sealed.versions(tx, mine.current))), None)


async def forget(world: World, target: str, now: datetime, *, actor: str) -> None:
    """What the settings name counts again: its owner set a password by hand. A rotation under way is given up.

    Raises NotFound, NotPossible, Unavailable: see `own`.
    """
    mine = own(world, target)

    async def unit(tx: Transaction) -> None:
        await sealed.forget(tx, mine.candidate)
        await sealed.forget(tx, mine.current)
        await receipts.append(tx, world.broker, _receipt(world, mine, now, actor=actor, done="forgotten"))

    failpoint.reach("rotate.forget.before")
    await world.database.write(unit)
    failpoint.reach("rotate.forget.after")
    mine.engine.log_in_with(None)


def _receipt(world: World, mine: Own, now: datetime, *, actor: str | None = None, **facts: Any) -> Receipt:
    body = {"target": mine.target, "account": mine.account, **facts}
    return Receipt(kind=ReceiptKind.TARGET_ROTATED, at=now, actor=actor or told.us(world), body=body)
