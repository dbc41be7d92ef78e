"""T18: everyone who may log in to a target may list its users; that must tell nothing, and ids open nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as some

from broker.engines.naming import LONGEST, name, prefix
from broker.model.ids import LeaseId, new_lease
from fakes.world import living

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALPHABET = set("abcdefghijklmnopqrstuvwxyz234567")


@given(some.binary(min_size=32, max_size=32), some.binary(min_size=32, max_size=32))
def test_a_name_can_not_be_computed_without_the_key(ours: bytes, theirs: bytes) -> None:
    """The same lease under another key has another name."""
    lease = new_lease(NOW)
    assert (name("k3v9x0aa", ours, lease) == name("k3v9x0aa", theirs, lease)) == (ours == theirs)


@given(some.text(alphabet="0123456789abcdefghjkmnpqrstvwxyz", min_size=26, max_size=26))
def test_a_name_is_short_plain_and_no_part_of_the_lease(text: str) -> None:
    """It fits every target, and nothing of the id shows."""
    lease = LeaseId("l" + text)
    made = name("k3v9x0aa", b"k" * 32, lease)
    assert made.startswith(prefix("k3v9x0aa"))
    assert len(made) == LONGEST
    assert set(made.removeprefix(prefix("k3v9x0aa"))) <= ALPHABET
    assert lease[:12] not in made


async def test_a_principal_is_not_named_for_its_lease(tmp_path: Path) -> None:
    """What the target sees is the keyed hash, the same for whoever computes it from the store."""
    async with living(tmp_path) as house:
        handed = await house.obtain(await house.open())
        (seen,) = house.engine.target.principals
        assert handed.lease.id not in seen
        assert seen == house.world.name_of(handed.lease.id)
