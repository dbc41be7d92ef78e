"""Finding 39: one chain per writer must not mean that a whole chain can be dropped unseen."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from pathlib import Path

import pytest

from broker.audit.verify import Broken, Fault
from broker.command.audit_reading import Verifier
from broker.lifecycle import told
from broker.model.receipt import Entry
from broker.store import receipts
from broker.wire.audit import EntryTold
from ca.runtime.database import Database, migrate, open_database
from fakes.nouns import NOW


async def _three_starts(database: Database) -> list[Entry]:
    await migrate(database, "broker", files("broker.migrations"))
    for writer in ("b-first", "b-second", "b-third"):
        await database.write(partial(told.started, writer=writer, now=NOW))
    return list(await database.read(lambda tx: receipts.page(tx, after=None, limit=100)))


def _verify(entries: list[Entry]) -> None:
    verifier = Verifier()
    for entry in entries:
        verifier.take([EntryTold.of(entry)])
    verifier.finish()


async def test_a_chain_dropped_whole_is_named(tmp_path: Path) -> None:
    """Each start names the ends it found, so the absence of one shows."""
    async with open_database(f"sqlite:{tmp_path}/b.db") as database:
        entries = await _three_starts(database)
    _verify(entries)
    with pytest.raises(Broken) as broken:
        _verify([entry for entry in entries if entry.writer != "b-second"])
    assert (broken.value.writer, broken.value.fault) == ("b-second", Fault.CUT)


async def test_only_the_newest_chain_can_be_dropped_unseen(tmp_path: Path) -> None:
    """What nobody named yet can't be missed without a head kept elsewhere; the documents say so."""
    async with open_database(f"sqlite:{tmp_path}/b.db") as database:
        entries = await _three_starts(database)
    _verify([entry for entry in entries if entry.writer != "b-third"])
