"""A broker's store as somebody sees it who knows its tables and nothing else: all of it in one SQLite, to be asked."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg


@dataclass
class FileStore:
    """A folder with `broker.db`, held by nobody; `left_out` are files that are not read for secrets."""

    folder: Path
    left_out: frozenset[str] = frozenset()

    async def tables(self) -> sqlite3.Connection:
        """Opened; whoever asks closes it."""
        return _by_name(sqlite3.connect(self.folder / "broker.db"))

    async def contents(self) -> dict[str, bytes]:
        """Every file."""
        files = [file for file in self.folder.iterdir() if file.is_file() and file.name not in self.left_out]
        return {str(file): file.read_bytes() for file in files}


@dataclass
class SharedStore:
    """A PostgreSQL; `address` is what its driver takes."""

    address: dict[str, Any] = field(repr=False)
    _seen: dict[str, list[Any]] = field(default_factory=dict, repr=False)

    async def tables(self) -> sqlite3.Connection:
        """A copy in memory, of one moment."""
        copy = _by_name(sqlite3.connect(":memory:"))
        for table, rows in (await self._rows()).items():
            if rows:
                columns = list(rows[0].keys())
                copy.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
                copy.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", map(tuple, rows))
        for table in ("tasks (id, parent, ended_at)", "leases (id, task, name, state, target)"):
            copy.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        for table in ("receipts (task, lease, kind, writer, number)", "events (n, task, kind)", "epoch (n)"):
            copy.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        return copy

    async def contents(self) -> dict[str, bytes]:
        """Every row of every table."""
        return {f"the table {table}": repr(rows).encode() for table, rows in (await self._rows()).items()}

    async def _rows(self) -> dict[str, list[Any]]:
        """As they were at the first look."""
        self._seen = self._seen or await self._read()
        return self._seen

    async def _read(self) -> dict[str, list[Any]]:
        connection = await asyncpg.connect(**self.address)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                names = await connection.fetch("SELECT tablename AS t FROM pg_tables WHERE schemaname = 'public'")
                return {row["t"]: await connection.fetch(f'SELECT * FROM "{row["t"]}"') for row in names}
        finally:
            await connection.close()


def _by_name(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.row_factory = sqlite3.Row
    return connection
