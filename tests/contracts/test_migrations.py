"""Numbered SQL files become tables once, in order, and never quietly otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import pytest

from ca.runtime.database import Database, Transaction, WrongSchema, migrate
from fakes.stores import DRIVERS

REAL = [(package, files(package) / "migrations") for package in ("ca", "attestor.server", "broker")]


@pytest.fixture(params=sorted(DRIVERS))
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """An empty store."""
    async with DRIVERS[request.param](tmp_path) as store:
        yield store


def _folder(path: Path, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / f"{name[1:]}.sql").write_text(text)
    return path


async def test_migrations_are_applied_once_and_in_order(database: Database, tmp_path: Path) -> None:
    """A semicolon in a string or a comment ends nothing; a second run changes nothing; a new file is added."""
    folder = _folder(
        tmp_path / "m", _0001_first="CREATE TABLE one (a TEXT DEFAULT 'x;y'); -- a; b\n\nCREATE TABLE two (b TEXT);;\n"
    )
    await migrate(database, "p", folder)
    await migrate(database, "p", folder)
    _folder(folder, _0002_second="INSERT INTO two (b) VALUES ('it''s; so');\n/* ; */\n")
    await migrate(database, "p", folder)
    await migrate(database, "q", _folder(tmp_path / "q", _0001_first="CREATE TABLE three (c TEXT)"))

    async def unit(tx: Transaction) -> tuple[list[tuple[object, ...]], list[object]]:
        rows = await tx.fetch("SELECT package, number, name FROM migrations ORDER BY package, number")
        texts = await tx.fetch("SELECT b FROM two ORDER BY b")
        return [(row["package"], row["number"], row["name"]) for row in rows], [row["b"] for row in texts]

    assert await database.read(unit) == (
        [("p", 1, "first"), ("p", 2, "second"), ("q", 1, "first")],
        ["it's; so"],
    )


async def test_a_migration_that_fails_leaves_nothing_behind(database: Database, tmp_path: Path) -> None:
    """It is one transaction; mended, it is applied."""
    folder = _folder(tmp_path / "m", _0001_first="CREATE TABLE one (a TEXT); INSERT INTO nowhere VALUES (1)")
    with pytest.raises(RuntimeError):
        await migrate(database, "p", folder)
    await migrate(database, "p", _folder(folder, _0001_first="CREATE TABLE one (a TEXT)"))


async def test_a_changed_or_newer_migration_is_refused_with_a_sentence(database: Database, tmp_path: Path) -> None:
    """An old version must not write into tables it does not know."""
    folder = _folder(tmp_path / "m", _0001_first="CREATE TABLE one (a TEXT)", _0002_second="CREATE TABLE two (a TEXT)")
    await migrate(database, "p", folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(WrongSchema, match=r"0002 \(`second`\) of `p`.*start a newer version"):
        await migrate(database, "p", folder)
    _folder(folder, _0001_first="CREATE TABLE one (b TEXT)", _0002_second="CREATE TABLE two (a TEXT)")
    with pytest.raises(WrongSchema, match=r"0001 \(`first`\).*another form"):
        await migrate(database, "p", folder)


@pytest.mark.parametrize("names", [("_0002_second",), ("_0001_a", "_0001_b"), ("_first",), ("_0001_a", "_0003_c")])
async def test_a_gap_in_the_numbers_is_our_own_mistake(
    database: Database, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Numbers begin at 1 and go on by 1."""
    with pytest.raises(RuntimeError, match="is not the next migration"):
        await migrate(database, "p", _folder(tmp_path / "m", **dict.fromkeys(names, "SELECT 1")))


@pytest.mark.parametrize(("package", "folder"), REAL)
async def test_our_own_tables_can_be_made_on_every_store(database: Database, package: str, folder: Traversable) -> None:
    """One text for both; twice, as at every start."""
    for _ in range(2):
        await migrate(database, package, folder)
