"""Identities of tasks at the server: create-only, one instance's for good, gone with a word, with a clock, with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from attestor.errors import InstanceEnded, NotEntitled, Unobserved
from attestor.server.store import task_identities as store
from attestor.server.store.nodes import Node
from attestor.wire.attestation import Attestation, Identity
from attestor.wire.node import JwtItem, LiveSet, Refusal, Signed, WitItem
from attestor.wire.task_identity import LONGEST_LEAF, LONGEST_TOKEN, MOST_OF_INSTANCE, Grant, Withdrawal
from ca.errors import Conflict, Exhausted, NotFound, Stale
from ca.spiffe import jose, jwtsvid
from ca.spiffe.id import SpiffeId
from ca.store import is_revoked
from fakes.attestor_parts import DOMAIN, SPKI, Parts, attestation, parts, wants
from fakes.stores import on_every_store  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("on_every_store")

RULES = """\
rules:
  - name: a
    nodes: ["node:*"]
    when: [unix:uid:7]
    spiffe_id: /a
    hint: main
"""
TASK = "t0000000000000000000000001"
NAME = "sj_aaaaaaaa_" + "a" * 20


@dataclass
class Desk:
    """A server with one node and one process on it."""

    server: Parts
    node: Node
    process: Attestation

    def grant(self, **changes: object) -> Grant:
        """What a broker asks for."""
        now = self.server.clock.now()
        one = Grant(
            name=NAME,
            task=TASK,
            instance=self.process.instance,
            ends_at=now + timedelta(hours=1),
            grant_by=now + timedelta(seconds=10),
        )
        return replace(one, **changes)  # type: ignore[arg-type]

    async def given(self, **changes: object) -> Grant:
        """It is granted."""
        asked = self.grant(**changes)
        await self.server.identities.grant(asked, self.server.clock.now())
        return asked

    async def begun(self) -> Attestation:
        """Another process on the node."""
        other = attestation("unix:uid:7")
        (signed,) = await self.server.workloads.sign(self.node, [wants("/a", other)], self.server.clock.now())
        assert isinstance(signed, Signed)
        return other

    async def identities(self) -> list[Identity]:
        """What the process is entitled to."""
        (told,), _ = await self.server.workloads.resolve(self.node, [self.process])
        return list(told.identities)

    async def leaf(self, task: str = TASK) -> Signed | Refusal:
        """A certificate of a task."""
        item = wants(f"/task/{task}", self.process)
        (result,) = await self.server.workloads.sign(self.node, [item], self.server.clock.now())
        return result

    async def withdraw(self, name: str = NAME, *, close: bool = False) -> int:
        """The broker's word."""
        return await self.server.identities.withdraw(Withdrawal(name=name, close=close), self.server.clock.now())

    async def confirmed(self) -> None:
        """The task lives, and the node is heard of."""
        now = self.server.clock.now()
        self.server.instances.heard(await self.server.node(self.server.peer_id("n")), now)
        await self.server.identities.confirm([NAME], now)

    async def revoked(self, leaf: Signed) -> bool:
        """Whether a leaf was taken back."""
        peer = self.server.peer(leaf.chain)
        return await self.server.database.read(lambda tx: is_revoked(tx, peer.issuer_key_id, peer.serial))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A process that has its identity."""
    async with parts(tmp_path, RULES) as server:
        node = await server.join("n")
        found = Desk(server, node, attestation("unix:uid:7"))
        (signed,) = await server.workloads.sign(node, [wants("/a", found.process)], server.clock.now())
        assert isinstance(signed, Signed)
        yield found


def id_of(task: str = TASK) -> SpiffeId:
    """What a task's identity is called."""
    return DOMAIN.member(f"/task/{task}")


async def test_it_comes_behind_the_default_identity_with_the_task_as_its_hint(desk: Desk) -> None:
    """And ends when the task is to end."""
    asked = await desk.given()
    first, second = await desk.identities()
    assert (first.id.path, first.hint, first.ends_at) == ("/a", "main", None)
    assert (second.id, second.hint, second.ends_at, second.bind) == (id_of(), TASK, asked.ends_at, "process")


async def test_its_leaf_is_short_and_never_outlives_the_task(desk: Desk) -> None:
    """Five minutes, or what is left of the task."""
    asked = await desk.given(ends_at=desk.server.clock.now() + timedelta(minutes=7))
    leaf = await desk.leaf()
    assert isinstance(leaf, Signed)
    peer = desk.server.peer(leaf.chain)
    assert (peer.id, peer.instance) == (id_of(), desk.process.instance)
    assert peer.not_after == desk.server.clock.now() + LONGEST_LEAF
    await desk.server.clock.advance(6 * 60)
    await desk.confirmed()
    last = await desk.leaf()
    assert isinstance(last, Signed)
    assert desk.server.peer(last.chain).not_after == asked.ends_at


async def test_its_tokens_name_task_and_instance_and_live_a_minute(desk: Desk) -> None:
    """Traps 34; the last one ends with the task."""
    asked = await desk.given(ends_at=desk.server.clock.now() + timedelta(seconds=90))
    item = JwtItem(attestation=desk.process, id=id_of(), audience=("x",))
    token = jwtsvid.parse_unverified(await desk.server.workloads.sign_jwt(desk.node, item, desk.server.clock.now()))
    assert token.id == id_of()
    assert jose.instance_of(token.claims) == desk.process.instance
    assert token.expires_at - desk.server.clock.now() == LONGEST_TOKEN
    await desk.server.clock.advance(45)
    await desk.confirmed()
    last = jwtsvid.parse_unverified(await desk.server.workloads.sign_jwt(desk.node, item, desk.server.clock.now()))
    assert last.expires_at == asked.ends_at
    wit = WitItem(attestation=desk.process, id=id_of(), public_key=SPKI)
    _, claims = jose.take_apart(await desk.server.workloads.sign_wit(desk.node, wit, desk.server.clock.now()), "a wit")
    assert claims["exp"] == asked.ends_at.timestamp()


async def test_withdrawn_it_is_gone_and_its_leaf_is_on_the_list(desk: Desk) -> None:
    """The leaf, and no other of the process; the instance lives on."""
    await desk.given()
    leaf = await desk.leaf()
    assert isinstance(leaf, Signed)
    assert await desk.withdraw() == 1
    assert [one.id.path for one in await desk.identities()] == ["/a"]
    assert isinstance(await desk.leaf(), Refusal)
    assert await desk.server.listed() == {desk.server.peer(leaf.chain).serial}
    assert await desk.withdraw() == 0


async def test_the_same_grant_again_is_answered_and_anything_else_is_in_its_way(desk: Desk) -> None:
    """Under its name, and for its task."""
    now = desk.server.clock.now()
    asked = await desk.given()
    again = await desk.server.identities.grant(asked, now)
    assert (again.id, again.made) == (id_of(), False)
    other = await desk.begun()
    for changed in (
        {"task": "t2"},
        {"instance": other.instance},
        {"ends_at": asked.ends_at + timedelta(seconds=1)},
        {"name": NAME[:-1] + "b"},
        {"name": NAME[:-1] + "b", "instance": other.instance},
    ):
        with pytest.raises(Conflict):
            await desk.server.identities.grant(replace(asked, **changed), now)
    assert len(await desk.identities()) == 2


async def test_a_name_withdrawn_first_can_never_be_granted(desk: Desk) -> None:
    """A grant in flight comes after it, and finds it taken; the task may be given another under another name."""
    assert await desk.withdraw() == 0
    with pytest.raises(Conflict):
        await desk.given()
    await desk.withdraw(close=True)
    with pytest.raises(Conflict):
        await desk.given()
    await desk.given(name=NAME[:-1] + "b")
    assert len(await desk.identities()) == 2


async def test_another_instance_never_gets_it_even_afterwards(desk: Desk) -> None:
    """It was one instance's; a new grant for the same one is well."""
    await desk.given()
    await desk.withdraw(close=True)
    other = await desk.begun()
    with pytest.raises(Conflict):
        await desk.given(name=NAME[:-1] + "b", instance=other.instance)
    await desk.given(name=NAME[:-1] + "b")
    item = JwtItem(attestation=other, id=id_of(), audience=("x",))
    with pytest.raises(NotEntitled):
        await desk.server.workloads.sign_jwt(desk.node, item, desk.server.clock.now())


async def test_what_comes_too_late_or_is_over_is_refused(desk: Desk) -> None:
    """By the server's own clock."""
    now = desk.server.clock.now()
    for late in ({"grant_by": now - timedelta(microseconds=1)}, {"ends_at": now}):
        with pytest.raises(Stale):
            await desk.given(**late)
    assert len(await desk.identities()) == 1


async def test_who_does_not_live_gets_nothing(desk: Desk) -> None:
    """Unknown, silent, ended."""
    with pytest.raises(NotFound):
        await desk.given(instance="0" * 32)
    await desk.server.clock.advance(20)
    await desk.server.instances.tick(desk.server.clock.now())
    with pytest.raises(Unobserved):
        await desk.given()
    await desk.server.instances.report(desk.node, LiveSet(counter=9, instances=frozenset()), desk.server.clock.now())
    with pytest.raises(InstanceEnded):
        await desk.given()


async def test_an_instance_has_so_many_and_no_more(desk: Desk) -> None:
    """And room again when one ended."""
    for number in range(MOST_OF_INSTANCE):
        await desk.given(name=f"sj_{number}", task=f"t{number}")
    with pytest.raises(Exhausted):
        await desk.given()
    await desk.withdraw("sj_0")
    await desk.given()


async def test_the_end_of_its_instance_is_its_end(desk: Desk) -> None:
    """With its leaf."""
    await desk.given()
    leaf = await desk.leaf()
    assert isinstance(leaf, Signed)
    await desk.server.instances.report(desk.node, LiveSet(counter=9, instances=frozenset()), desk.server.clock.now())
    found = await desk.server.database.read(lambda tx: store.get(tx, NAME))
    assert found is not None
    assert found.state == "withdrawn"
    assert await desk.revoked(leaf)
    assert await desk.withdraw() == 0


async def test_its_own_end_is_final_whatever_a_clock_says_later(desk: Desk) -> None:
    """A clock that is set back brings nothing back."""
    before = desk.server.clock.now()
    await desk.given(ends_at=before + timedelta(seconds=30))
    leaf = await desk.leaf()
    assert isinstance(leaf, Signed)
    await desk.server.clock.advance(30)
    await desk.confirmed()
    assert isinstance(await desk.leaf(), Refusal)
    assert await desk.server.identities.tick(desk.server.clock.now()) == 1
    assert len(await desk.identities()) == 1
    item = wants(f"/task/{TASK}", desk.process)
    (result,) = await desk.server.workloads.sign(desk.node, [item], before)
    assert isinstance(result, Refusal)


@pytest.mark.parametrize("step", [61, -61])
async def test_nothing_new_for_a_task_nobody_confirms(desk: Desk, step: int) -> None:
    """Traps 21; what others of the same question get is not touched, and a word makes it good."""
    await desk.server.clock.advance(120)
    await desk.confirmed()
    await desk.given()
    now = desk.server.clock.now() + timedelta(seconds=step)
    desk.server.instances.heard(desk.node, now)
    items = [wants(f"/task/{TASK}", desk.process), wants("/a", desk.process)]
    refused, signed = await desk.server.workloads.sign(desk.node, items, now)
    assert isinstance(refused, Refusal)
    assert refused.code == Unobserved.code
    assert isinstance(signed, Signed)
    assert await desk.server.identities.confirm([NAME, "sj_b"], now) == ["sj_b"]
    refused, _ = await desk.server.workloads.sign(desk.node, items, now)
    assert isinstance(refused, Signed)


async def test_names_come_in_pages_until_they_are_closed(desk: Desk) -> None:
    """What was withdrawn and not closed is still there to be found; others' names are not."""
    for number in range(3):
        await desk.given(name=f"sj_x_{number}", task=f"t{number}")
    await desk.given(name="sj_y_1", task="ty")
    await desk.withdraw("sj_x_1")
    await desk.withdraw("sj_x_2", close=True)
    names = desk.server.identities.names
    assert await names("sj_x_", "") == ["sj_x_0", "sj_x_1"]
    assert await names("sj_x_", "sj_x_0") == ["sj_x_1"]
    assert await names("sj_x_", "sj_x_1") == []


async def test_nobody_else_learns_of_it(desk: Desk) -> None:
    """Another node that names the instance is told nothing and signed nothing."""
    await desk.given()
    other = await desk.server.join("other")
    (told,), _ = await desk.server.workloads.resolve(other, [desk.process])
    assert [one.id.path for one in told.identities] == ["/a"]
    (result,) = await desk.server.workloads.sign(other, [wants(f"/task/{TASK}", desk.process)], desk.server.clock.now())
    assert isinstance(result, Refusal)
    assert await desk.server.workloads.personal.versions(other) == {}
    assert list(await desk.server.workloads.personal.versions(desk.node)) == [desk.process.instance]


async def test_the_version_of_a_node_changes_with_every_grant_and_every_end(desk: Desk) -> None:
    """So that the node asks again."""
    versions = [await desk.server.workloads.personal.versions(desk.node)]
    for number in range(2):
        await desk.given(name=f"sj_{number}", task=f"t{number}")
        versions.append(await desk.server.workloads.personal.versions(desk.node))
    await desk.withdraw("sj_0")
    versions.append(await desk.server.workloads.personal.versions(desk.node))
    assert len({str(one) for one in versions}) == 4


async def test_whom_no_rule_knows_any_more_has_none(desk: Desk, tmp_path: Path) -> None:
    """It stands behind the rules' identities, never alone."""
    await desk.given()
    (tmp_path / "rules.yaml").write_text("rules: []")
    await desk.server.rules.tick(desk.server.clock.now())
    assert await desk.identities() == []
    assert isinstance(await desk.leaf(), Refusal)


async def test_what_is_long_over_is_forgotten(desk: Desk) -> None:
    """A day later; what is in force is not."""
    await desk.given(ends_at=desk.server.clock.now() + timedelta(days=3))
    await desk.withdraw("sj_1")
    later = desk.server.clock.now() + timedelta(days=1, seconds=1)
    await desk.server.database.write(lambda tx: store.prune(tx, later))
    assert await desk.server.database.read(lambda tx: store.get(tx, "sj_1")) is None
    assert await desk.server.database.read(lambda tx: store.get(tx, NAME)) is not None
