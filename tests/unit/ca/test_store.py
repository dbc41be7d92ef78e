"""The authority's tables: what a statement may change, and what it never may."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ca import store
from ca.errors import Conflict, Stale
from ca.profiles.prepared import MAKER, Kind, Prepared
from ca.rotation import MIGRATIONS
from ca.runtime.database import Database, Duplicate, Transaction, migrate
from ca.spiffe.id import TrustDomain
from ca.store import Move, State, StoredAuthority
from fakes.authority import BEGIN, DOMAIN, INSTANCE
from fakes.stores import DRIVERS

ROOT = StoredAuthority(
    server="main",
    key_id=bytes(20),
    kind=Kind.ROOT,
    state=State.PREPARED,
    key_name="root-1",
    issuer_key_id=None,
    public_key=b"key",
    certificate=b"certificate",
    not_before=BEGIN,
    not_after=BEGIN + timedelta(days=10),
    signed_until=BEGIN,
    published_at=BEGIN,
)
ISSUING = replace(ROOT, key_id=b"\x01" * 20, kind=Kind.ISSUING, key_name="issuing-1", issuer_key_id=ROOT.key_id)
TOKENS = replace(ROOT, key_id=b"\x02" * 20, kind=Kind.JWT, key_name="jwt-1", certificate=None)


@pytest.fixture(params=DRIVERS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A store that belongs to `example.org` and has no authority."""
    async with DRIVERS[request.param](tmp_path) as database:
        await migrate(database, "ca", MIGRATIONS)
        await database.write(partial(store.claim, trust_domain=DOMAIN))
        yield database


def prepared(serial: int, **changes: Any) -> Prepared:
    """Something that is about to be signed by the issuing authority."""
    facts: dict[str, Any] = {
        "kind": Kind.LEAF,
        "tbs": b"",
        "subject": DOMAIN.member("/agent"),
        "serial": serial,
        "issuer_key_id": ISSUING.key_id,
        "not_before": BEGIN,
        "not_after": BEGIN + timedelta(hours=1),
        "instance": INSTANCE,
    }
    return Prepared(MAKER, **{**facts, **changes})


async def insert(database: Database, *authorities: StoredAuthority) -> None:
    """Add authorities, in one transaction each."""
    for authority in authorities:
        await database.write(partial(store.insert, authority=authority, now=BEGIN))


async def move(database: Database, authority: StoredAuthority, before: State, after: State) -> None:
    """Change one state."""
    step = Move(key_id=authority.key_id, before=before, after=after)
    await database.write(partial(store.move, step=step, now=BEGIN))


async def test_what_is_inserted_is_read_back(database: Database) -> None:
    """Every field survives, and the oldest comes first."""
    await insert(database, ROOT, ISSUING, TOKENS)
    assert list(await database.read(store.trusted)) == [ROOT, ISSUING, TOKENS]


async def test_a_state_is_changed_by_compare_and_swap(database: Database) -> None:
    """Whoever believes in another state is refused and changes nothing."""
    await insert(database, ROOT)
    with pytest.raises(Stale, match="no longer `active`"):
        await move(database, ROOT, State.ACTIVE, State.OLD)
    await move(database, ROOT, State.PREPARED, State.ACTIVE)
    assert [each.state for each in await database.read(store.trusted)] == [State.ACTIVE]


@pytest.mark.parametrize("state", [State.ACTIVE, State.PREPARED])
async def test_the_store_itself_allows_one_of_a_kind(database: Database, state: State) -> None:
    """Two active or two prepared authorities of a kind can't be, whoever writes."""
    await insert(database, replace(ROOT, state=state), replace(TOKENS, state=state))
    with pytest.raises(Duplicate):
        await insert(database, replace(ROOT, state=state, key_id=b"\x07" * 20, key_name="root-2"))


@pytest.mark.parametrize("state", [state for state in State if state is not State.ACTIVE])
async def test_only_an_active_authority_may_record(database: Database, state: State) -> None:
    """The fence holds in the same transaction in which the serial is noted."""
    await insert(database, ROOT, replace(ISSUING, state=state))

    async def unit(tx: Transaction) -> None:
        await store.fence(tx, ISSUING.key_id, BEGIN + timedelta(hours=1))
        await store.record(tx, [prepared(1)])

    with pytest.raises(Stale, match="no longer active"):
        await database.write(unit)
    assert not await database.read(partial(store.issued_to, instance=INSTANCE, now=BEGIN))


async def test_the_fence_keeps_the_latest_end(database: Database) -> None:
    """`signed_until` only grows."""
    await insert(database, ROOT, replace(ISSUING, state=State.ACTIVE))
    for hours in (3, 1, 2):
        await database.write(partial(store.fence, key_id=ISSUING.key_id, until=BEGIN + timedelta(hours=hours)))
    (found,) = [each for each in await database.read(store.trusted) if each.kind is Kind.ISSUING]
    assert found.signed_until == BEGIN + timedelta(hours=3)


async def test_what_an_instance_was_given_is_found_until_it_expires(database: Database) -> None:
    """Leaves and tokens, by issuer and serial, the whole 159 bits of it."""
    large = 2**159 - 1
    batch = [prepared(large), prepared(2, not_after=BEGIN + timedelta(minutes=1)), prepared(3, instance=None)]
    await database.write(partial(store.record, batch=batch))
    found = await database.read(partial(store.issued_to, instance=INSTANCE, now=BEGIN))
    assert [each.serial for each in found] == [2, large]
    later = await database.read(partial(store.issued_to, instance=INSTANCE, now=BEGIN + timedelta(minutes=1)))
    assert [(each.issuer_key_id, each.serial, each.spiffe_id) for each in later] == [
        (ISSUING.key_id, large, "spiffe://example.org/agent")
    ]


async def test_a_serial_is_recorded_once(database: Database) -> None:
    """The same serial of the same issuer is refused, that of another is another."""
    await database.write(partial(store.record, batch=[prepared(1)]))
    await database.write(partial(store.record, batch=[prepared(1, issuer_key_id=ROOT.key_id)]))
    with pytest.raises(Duplicate):
        await database.write(partial(store.record, batch=[prepared(1)]))


def test_issued_is_append_only() -> None:
    """No statement anywhere changes or removes what was issued."""
    root = Path(store.__file__).parents[2]
    forbidden = re.compile(r"(?:UPDATE|DELETE\s+FROM|DROP\s+TABLE|REPLACE\s+INTO)\s+ca_issued", re.IGNORECASE)
    files = [
        file for kind in ("py", "sql") for folder in ("ca", "attestor") for file in (root / folder).rglob(f"*.{kind}")
    ]
    assert len(files) > 20
    assert [file for file in files if forbidden.search(file.read_text())] == []


async def test_the_number_grows_with_the_members_alone(database: Database) -> None:
    """Adding, revoking and retiring change it; activating and issuing authorities do not."""

    async def number(now_seconds: int = 0) -> int:
        await database.write(
            partial(store.raise_sequence, now=BEGIN - timedelta(days=400) + timedelta(seconds=now_seconds))
        )
        return await database.read(store.sequence)

    empty = await number()
    await insert(database, ROOT)
    first = await number()
    assert first > empty
    assert await number(5) == first
    await move(database, ROOT, State.PREPARED, State.ACTIVE)
    await insert(database, ISSUING)
    assert await number() == first
    await insert(database, TOKENS)
    second = await number()
    assert second == first + 1
    await move(database, TOKENS, State.PREPARED, State.TAINTED)
    assert await number() == second
    await move(database, TOKENS, State.TAINTED, State.REVOKED)
    assert await number() == second + 1


async def test_the_number_does_not_go_back_with_a_restored_store(database: Database) -> None:
    """It is at least the time in seconds, so a store from a backup soon passes what peers have seen."""
    await insert(database, ROOT)
    await database.write(partial(store.raise_sequence, now=BEGIN))
    assert await database.read(store.sequence) == int(BEGIN.timestamp())


async def test_a_store_has_one_trust_domain(database: Database) -> None:
    """Another one is refused by name; the same one may claim again."""
    await database.write(partial(store.claim, trust_domain=DOMAIN))
    with pytest.raises(Conflict, match=r"belongs to the trust domain `example\.org`, not to `other\.org`"):
        await database.write(partial(store.claim, trust_domain=TrustDomain.parse("other.org")))


async def test_an_intent_lasts_until_its_authority_or_its_keys_end(database: Database) -> None:
    """Whatever was intended and not finished can be found by name."""
    for name in ("root-1", "jwt-1"):
        await database.write(partial(store.intend_key, server="main", key_name=name))
    await insert(database, ROOT)
    assert list(await database.read(partial(store.intended_keys, server="main"))) == ["jwt-1"]
    await database.write(partial(store.forget_intent, key_name="jwt-1"))
    assert list(await database.read(partial(store.intended_keys, server="main"))) == []


async def test_keys_of_finished_authorities_are_listed_until_destroyed(database: Database) -> None:
    """Revoked and retired ones, and no other."""
    await insert(database, ROOT, replace(TOKENS, state=State.OLD))
    assert list(await database.read(partial(store.keys_to_destroy, server="main"))) == []
    await move(database, TOKENS, State.OLD, State.RETIRED)
    assert list(await database.read(partial(store.keys_to_destroy, server="main"))) == ["jwt-1"]
    await database.write(partial(store.key_destroyed, key_name="jwt-1", now=BEGIN))
    assert list(await database.read(partial(store.keys_to_destroy, server="main"))) == []
    assert [each.state for each in await database.read(store.everything)] == [State.PREPARED, State.RETIRED]


async def test_migrating_again_changes_nothing(database: Database) -> None:
    """A start over an existing store is a start."""
    await insert(database, ROOT)
    await migrate(database, "ca", MIGRATIONS)
    assert list(await database.read(store.trusted)) == [ROOT]
