"""Take back what was given before its time: one leaf, an instance, a node, everything below a path.

What has an instance ends with it, for good and in the same transaction: a leaf alone would be replaced within a second,
by the node agent that holds it. Only a leaf that is named by its number is taken back alone, and replaced: its key may
have leaked while its process is sound. Each may be asked for as a dry run, may be repeated, and goes on with a full
disk. Others hear of it by the lists that follow (`ca.revocation`), who watches instances by the change itself.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from attestor.errors import UnknownNode
from attestor.instance import State
from attestor.server.instances import Instances
from attestor.server.store import instances as instance_store
from attestor.server.store import nodes
from attestor.server.store.instances import Instance
from attestor.server.store.nodes import NodeState
from ca import store
from ca.errors import Malformed, NotFound
from ca.runtime import log
from ca.runtime.database import Database, Transaction, Unit
from ca.spiffe.id import SpiffeId
from ca.store import Issued

REASON = "an operator revoked it"
_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """What is hit, or would be: instances that end, leaves that were not taken back yet, and a node sent away."""

    instances: tuple[str, ...] = ()
    leaves: tuple[Issued, ...] = ()
    node: str | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A hit, and the instances whose every leaf is taken back, also of those that have ended."""

    hit: Hit
    rows: tuple[Instance, ...] = ()


_Find = Callable[[Transaction], Coroutine[Any, Any, _Found]]


class Revocations:
    """An operator's word; one for each server process."""

    def __init__(self, database: Database, instances: Instances) -> None:
        self._database, self._instances = database, instances

    async def leaf(self, issuer_key_id: bytes, serial: int, now: datetime, *, dry_run: bool = False) -> Hit:
        """One leaf; its instance lives and gets another. Raises NotFound."""

        async def find(tx: Transaction) -> _Found:
            found = await store.leaf(tx, issuer_key_id, serial)
            if found is None:
                raise NotFound(f"no leaf `{serial:x}` was ever signed by the authority `{issuer_key_id.hex()}`")
            over = found.not_after <= now or await store.is_revoked(tx, issuer_key_id, serial)
            return _Found(Hit(leaves=() if over else (found,)))

        return await self._do(find, now, dry_run=dry_run)

    async def instance(self, instance: str, now: datetime, *, dry_run: bool = False) -> Hit:
        """An instance ends, and all its leaves with it. Raises NotFound."""

        async def find(tx: Transaction) -> _Found:
            row = await instance_store.get(tx, instance)
            leaves = await store.leaves_of(tx, [instance], now)
            if row is None and not leaves:
                raise NotFound(f"no instance `{instance}` is known: `GET /v1/instances` lists them")
            return _found([row] if row else [], leaves)

        return await self._do(find, now, dry_run=dry_run)

    async def node(self, name: str, now: datetime, *, dry_run: bool = False) -> Hit:
        """A node is evicted: its own leaves, and all instances of it with theirs. Raises UnknownNode."""

        async def find(tx: Transaction) -> _Found:
            node = await nodes.get(tx, name)
            if node is None:
                raise UnknownNode(f"there is no node `{name}`")
            rows = await instance_store.all_of_node(tx, name)
            leaves = await store.leaves_of(tx, [node.admission, *(one.id for one in rows)], now)
            found = _found(rows, leaves)
            return replace(found, hit=replace(found.hit, node=name))

        async def evict(tx: Transaction) -> object:
            return await nodes.send_away(tx, name, NodeState.EVICTED)

        return await self._do(find, now, dry_run=dry_run, first=evict)

    async def under(self, identity: SpiffeId, now: datetime, *, dry_run: bool = False) -> Hit:
        """Whatever is called `identity` or anything below it, by whole segments. Raises Malformed.

        An instance that has such an identity ends with all the others it has.
        """
        if not identity.path:
            raise Malformed("everything of a trust domain is not taken back leaf by leaf: replace its authority")

        async def find(tx: Transaction) -> _Found:
            named = await store.leaves_under(tx, str(identity), now)
            ids = {one.instance for one in named if one.instance is not None}
            ids |= await instance_store.called(tx, str(identity))
            rows = [row for one in sorted(ids) if (row := await instance_store.get(tx, one)) is not None]
            also = await store.leaves_of(tx, [one.id for one in rows], now)
            return _found(rows, list(dict.fromkeys([*named, *also])))

        return await self._do(find, now, dry_run=dry_run)

    async def _do(self, find: _Find, now: datetime, *, dry_run: bool, first: Unit[object] | None = None) -> Hit:
        if dry_run:
            return (await self._database.read(find)).hit

        async def unit(tx: Transaction) -> Hit:
            if first is not None:  # before anything is looked up: nothing more begins behind our back
                await first(tx)
            found = await find(tx)
            await store.revoke(tx, found.hit.leaves, REASON, now)
            await self._instances.end(tx, found.rows, REASON, now)
            return found.hit

        hit = await self._database.write(unit, ending=True)
        _log.warning("revoked by an operator", instances=len(hit.instances), leaves=len(hit.leaves), node=hit.node)
        if hit.instances or hit.node is not None:
            self._instances.tell()
        else:
            self._instances.tell_lists()
        return hit


def _found(rows: Sequence[Instance], leaves: Sequence[Issued]) -> _Found:
    ends = tuple(one.id for one in rows if one.state is not State.ENDED)
    return _Found(Hit(instances=ends, leaves=tuple(leaves)), rows=tuple(rows))
