"""T24: a lease whose secret is a certificate, through the whole life of it, on a real server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.client.child import Delivery
from broker.client.secret import HeldSecret
from broker.command.gifts import libpq
from broker.errors import NotPossible
from broker.lifecycle.renew import renew
from broker.model.lease import CloseReason, LeaseState
from broker.wire.credentials import CredentialTold
from ca.errors import Unavailable
from fakes.world import House, living
from servers.postgres_tls import CertifiedPlace, certified_place, pki


@pytest.fixture
async def place() -> AsyncIterator[CertifiedPlace]:
    """A room of a real server that asks for certificates."""
    async with certified_place() as found:
        yield found


@pytest.fixture
async def house(tmp_path: Path, place: CertifiedPlace) -> AsyncIterator[House]:
    """A broker on it."""
    async with living(tmp_path, clock=place.clock, engine=place.engine, the_role=place.role) as made:
        yield made


async def test_its_lease_ends_when_it_does_and_is_not_renewed(house: House, place: CertifiedPlace) -> None:
    """The agent is told so: `last` is `until`."""
    handed = await house.held(await house.open())
    assert await place.login(handed.issued) is not None
    assert handed.lease.last == handed.lease.until
    with pytest.raises(NotPossible, match="ask for another one"):
        await renew(house.world, await house.lease(handed.lease.id), house.clock.now())
    assert await place.login(handed.issued) is not None


async def test_the_same_request_again_kills_the_first_and_makes_another(house: House, place: CertifiedPlace) -> None:
    """A certificate somebody caught is worth nothing once its principal is gone."""
    task = await house.open()
    first = await house.obtain(task, key="k")
    visit = await place.login(first.issued)
    with pytest.raises(Unavailable, match="ask again"):
        await house.obtain(task, key="k")
    await house.reap()
    lease = await house.lease(first.lease.id)
    assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.NOT_ACKNOWLEDGED)
    assert visit is not None
    assert not await visit.answers()
    assert await place.login(first.issued) is None
    second = await house.obtain(task, key="k")
    assert second.lease.handle.name != first.lease.handle.name
    assert await place.login(second.issued) is not None


async def test_no_key_is_in_the_store_or_the_database_s_log(
    house: House, place: CertifiedPlace, tmp_path: Path
) -> None:
    """It was made, handed over, and forgotten."""
    handed = await house.held(await house.open())
    lines = handed.issued.secret["private_key"].reveal().splitlines()[1:-1]
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("broker.db*"))
    assert handed.lease.handle.name.encode() in kept
    for line in lines:
        assert line.encode() not in kept
        assert line not in place.server.log


async def test_run_hands_it_over_as_libpq_reads_it(house: House, place: CertifiedPlace, tmp_path: Path) -> None:
    """Psql with the variables and files of `sojourn run`, and nothing else."""
    task = await house.open()
    permit = house.permit(task)
    handed = await house.held(task)
    told = CredentialTold.of(handed.lease, handed.issued.fields, handed.issued.secret, decision=permit.decision)
    environment = {"PATH": os.environ["PATH"], "PGSSLROOTCERT": str(pki().trusted)}
    for gift in libpq(HeldSecret(told)):
        value = gift.value.reveal()
        if gift.delivery is Delivery.FILE:
            path = tmp_path / gift.variable
            path.touch(mode=0o600)
            path.write_text(value)
            value = str(path)
        environment[gift.variable] = value
    assert "PGPASSFILE" not in environment
    done = subprocess.run(
        [str(place.server.binaries / "psql"), "-Atc", "SELECT count(*) FROM orders"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("3\n", "")
