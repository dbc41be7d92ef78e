"""Values that operators give: put, told of, destroyed; never shown again but through a lease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.model.caller import Verb
from broker.model.receipt import Receipt, ReceiptKind
from broker.model.value import HOLDERS, check_value_name, resting
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.store import receipts, sealed
from broker.store.sealed import Version
from ca.errors import NotFound, Unavailable
from ca.runtime.database import Transaction
from ca.runtime.secret import Secret
from ca.seal import Seal


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """One value of one target, by the name it rests under."""

    target: str
    name: str

    @property
    def resting(self) -> str:
        """In the vault."""
        return resting(self.target, self.name)


async def put(gate: Gate, asked: Asked, target: str, name: str, value: Secret) -> int:
    """Let `value` be the newest version; its number.

    Raises:
        Denied, NotFound: the caller may not; no target of that name holds values.
        Malformed: not a name.
        Unavailable: no sealing key, or the store is full.
    """
    shelf, seal = _shelf(gate, asked, target, name), _seal(gate)

    async def write(tx: Transaction) -> int:
        number = await sealed.add(tx, seal, shelf.resting, value, asked.now)
        await receipts.append(tx, gate.world.broker, _receipt(asked, shelf, put=number))
        return number

    return await gate.world.database.write(write)


async def versions(gate: Gate, asked: Asked, target: str, name: str) -> Sequence[Version]:
    """What is known of every version, the newest first. Raises Denied, NotFound, Malformed."""
    shelf = _shelf(gate, asked, target, name)
    found = await gate.world.database.read(lambda tx: sealed.versions(tx, shelf.resting))
    if not found:
        raise NotFound(f"no value `{target}/{name}` was put")
    return found


async def destroy(gate: Gate, asked: Asked, target: str, name: str, number: int) -> None:
    """Let one version be no more. Raises Denied, NotFound, Malformed."""
    shelf = _shelf(gate, asked, target, name)

    async def write(tx: Transaction) -> None:
        try:
            await sealed.destroy(tx, shelf.resting, number, asked.now)
        except NotFound:
            raise NotFound(f"`{target}/{name}` has no version {number}") from None
        await receipts.append(tx, gate.world.broker, _receipt(asked, shelf, destroyed=number))

    await gate.world.database.write(write, ending=True)


def _shelf(gate: Gate, asked: Asked, target: str, name: str) -> Shelf:
    asked.demand(Verb.MANAGE_VALUES)
    engine = gate.world.engines.get(target)
    if engine is None or engine.kind not in HOLDERS:
        raise NotFound(f"there is no target `{target[:60]}` that holds values")
    return Shelf(target=target, name=check_value_name(name))


def _seal(gate: Gate) -> Seal:
    if gate.world.seal is None:
        raise Unavailable("nothing rests here: the broker has no sealing key (`keys.seal`)")
    return gate.world.seal


def _receipt(asked: Asked, shelf: Shelf, **done: Any) -> Receipt:
    body = {"target": shelf.target, "value": shelf.name, **done}
    return Receipt(kind=ReceiptKind.VALUE_CHANGED, at=asked.now, actor=str(asked.caller), body=body)
