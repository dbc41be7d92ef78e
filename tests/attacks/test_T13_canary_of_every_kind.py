"""T13: whatever kind of secret a real target makes, it stands in its one answer and nowhere else.

A password, a certificate's key, an SSH key, an access token, a value of an operator: taken through a lease's whole
life, then searched in the store with its write-ahead log, in everything logged at debug level, in receipts, events and
failures, and in what the target itself has logged. That the search would find it is shown by a copy that is planted.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.store import strangers
from broker.store.sealed import Sealed
from ca.errors import Problem
from ca.runtime import log
from ca.runtime.clock import SystemClock
from ca.runtime.secret import Secret
from ca.seal import AesSeal
from fakes.canary import marks, raw_of, sightings, written  # noqa: F401 - a fixture
from fakes.stores import on_disk
from fakes.world import House, living
from servers.places import PLACES

SEAL = AesSeal(bytes(range(32)))
_POSTGRES = next(name for name, kind in PLACES.items() if kind.engine == "postgres")
_CERTIFICATE = next(name for name in PLACES if name.endswith("-certificate"))
KINDS = (_POSTGRES, _CERTIFICATE, "mariadb", "redis", "rabbitmq", "ssh", "oauth", "aws", "kubernetes", "static")


async def lived(house: House) -> tuple[list[str], list[str]]:
    """A lease's whole life; every secret that was handed over, and every failure on the way."""
    task = await house.open()
    handed, failed = [await house.obtain(task, key="once")], []
    try:
        handed.append(await house.obtain(task, key="once"))
    except Problem as problem:
        failed.append(f"{problem!r} {problem.__cause__!r}")
    handed.append(await house.held(task, key="another"))
    await house.end(task)
    await house.reap()
    await house.sweep()
    log.get("broker.canary").warning("what a lease's life said", handed=handed, engine=house.engine, failed=failed)
    failed += [repr(handed), repr(house.world), str(house.engine), repr(vars(house.engine))]
    return [secret.reveal() for one in handed for secret in one.issued.secret.values()], failed


async def _planted(house: House, secret: str, folder: Path) -> dict[str, bytes]:
    """The store after somebody wrote a secret into it."""
    await house.world.database.write(lambda tx: strangers.see(tx, "anywhere", secret, house.clock.now()))
    return await on_disk(folder)


@pytest.mark.parametrize("kind", KINDS)
async def test_it_stands_nowhere(kind: str, tmp_path: Path, written: Any) -> None:  # noqa: F811 - the fixture
    """Zero sightings; and where it was planted, it is seen."""
    async with PLACES[kind].open() as place:
        the_role = replace(place.role, engine=PLACES[kind].engine)
        async with living(tmp_path, clock=SystemClock(), engine=place.engine, the_role=the_role) as house:
            if getattr(getattr(place.engine, "_lent", None), "vault", None) is not None:
                vault = Sealed(house.world.database, SEAL, house.clock)
                place.engine._lent = replace(place.engine._lent, vault=vault)
                await vault.write(f"value/{the_role.target}/{the_role.name}", Secret("canary-of-an-operator"))
            secrets, failed = await lived(house)
            places = await on_disk(tmp_path) | {
                "log": written.getvalue().encode(),
                "failures": "".join(failed).encode(),
                "receipts": repr(await house.receipts()).encode(),
                "events": repr(await house.events()).encode(),
                "target": str(getattr(getattr(place, "server", None), "log", "")).encode(),
            }
            found = [mark for secret in secrets for mark in marks(secret)]
            written.write(found[-1])  # past the walls of the log, which would hide even this
            planted = await _planted(house, found[-1], tmp_path) | {"log": written.getvalue().encode()}
    assert len(secrets) >= 2
    assert len(places["log"]) > 100
    assert any(len(content) > 10_000 for name, content in places.items() if name.startswith("broker.db"))
    assert sightings(found, places) == []
    for raw in filter(None, map(raw_of, secrets)):
        assert [name for name, content in places.items() if raw in content] == []
    assert {name.split("-")[0] for name in sightings(found, planted)} == {"broker.db", "log"}
