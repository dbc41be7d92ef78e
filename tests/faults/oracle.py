"""What is true outside, judged by somebody who shares no line with the product.

It reads the store's tables by SQL of its own, store and server through `eyes/`, and says what breaks the promise:

    roles       no login with our prefix but of an active lease; none at all but of an open one, and in the end of none
    leases      none active whose task, or a task above it, has ended
    sessions    none open but of an active lease
    accounts    one that is lent is open to its one lease
    record      every step of every lease and task has its receipt; events are dense; each chain of receipts holds
    answers     what an agent was told is so: no task, no end and no hand-over was lost
    secrets     no password that was handed over in any file of the store or in the server's log, nor any other there

Where nothing that was handed over can be taken back (`lasting`), it may open for as long as its lease is open; its
lease is open until it has ended by itself, and closes as expired, since nobody revoked it.

Run it only when no broker holds the store. An empty answer is a clean world.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

PREFIX = "sj_"
NOT_WATCHED = {"keys"}
"""Targets of which nothing is seen."""
LENT = "shelf"
"""The target whose accounts somebody else made."""
IDENTITIES = "svid"
"""The target that is a file: the identities of tasks."""


class Eyes(Protocol):
    """One kind of server, seen by foreign means (`eyes/`)."""

    log: Path

    @property
    def lasting(self) -> bool:
        """Whether what was handed over opens until its own end, whatever anybody does."""

    @property
    def lingers(self) -> bool:
        """Whether the name of one that nobody can log in as may be held from one sweep to the next."""

    async def principals(self, prefix: str) -> dict[str, bool] | None: ...

    async def sessions(self, prefix: str) -> list[tuple[str, str]]: ...

    async def opens(self, user: str, secret: str) -> bool: ...

    def clear(self, log: bytes) -> Iterator[str]: ...

    async def close(self) -> None: ...


class Store(Protocol):
    """The broker's tables, and everything that is written of them."""

    async def tables(self) -> sqlite3.Connection: ...

    async def contents(self) -> dict[str, bytes]: ...


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Where to look. `eyes` look at the server, and at its log from `log_from` on; `notes`: what agents know.

    `ahead`: a file that says how many seconds the broker's clock has leapt, if it may leap.
    `knocks` chooses passwords to knock with, among those that could open; without it with all.
    """

    store: Store
    eyes: Eyes
    log_from: int
    notes: Path
    registry: Path
    ahead: Path | None = None
    knocks: Callable[[list[tuple[str, str]]], list[tuple[str, str]]] | None = None


async def look(where: Outside, *, after_a_minute: bool = False) -> list[str]:
    """Every broken promise. After a minute nothing of an in-doubt create may be left either."""
    store = await where.store.tables()
    told = [json.loads(line) for line in where.notes.read_text().splitlines()] if where.notes.exists() else []
    found = [*_tasks(store), *_leases(store, where.eyes), *_events(store), *_chains(store)]
    found += _identities(store, where, told, after_a_minute)
    found += _told(store, told)
    found += _ends(store, where.eyes, told)
    found += await _server(store, where, told, after_a_minute)
    found += await _lent(store, where, told)
    store.close()
    return found + [fault async for fault in _secrets(where, told)]


def rows(store: sqlite3.Connection, query: str, *arguments: Any) -> list[sqlite3.Row]:
    """All of them."""
    return store.execute(query, arguments).fetchall()


_ENDED_LINE = """
WITH RECURSIVE ended (id) AS (
  SELECT id FROM tasks WHERE ended_at IS NOT NULL UNION SELECT t.id FROM tasks t JOIN ended e ON t.parent = e.id)
"""


def _tasks(store: sqlite3.Connection) -> Iterator[str]:
    live = rows(store, _ENDED_LINE + "SELECT id FROM tasks WHERE ended_at IS NULL AND id IN (SELECT id FROM ended)")
    yield from (f"the task {row['id']} lives below one that ended" for row in live)
    active = rows(
        store,
        _ENDED_LINE + "SELECT id, task FROM leases WHERE state = 'active' AND task IN (SELECT id FROM ended)",
    )
    yield from (f"the lease {row['id']} is active and its task {row['task']} has ended" for row in active)
    said = _receipts(store, "task")
    for task in rows(store, "SELECT * FROM tasks"):
        counted, ended = said[task["id"]], int(task["ended_at"] is not None)
        expected = {"task.opened": 1, "task.ended": ended, "task.changed": task["version"] - 1 - ended}
        yield from _compare(f"the task {task['id']}", counted, expected)
        if ended != int(task["state"] in {"done", "failed", "cancelled", "expired"}):
            yield f"the task {task['id']} is {task['state']} and its end says otherwise"


def _leases(store: sqlite3.Connection, eyes: Eyes) -> Iterator[str]:
    said = _receipts(store, "lease")
    for lease in rows(store, "SELECT * FROM leases"):
        closed = lease["closed_at"] is not None
        never_sent = closed and lease["revoking_at"] == lease["access_ended_at"] == lease["closed_at"]
        ends_itself = lease["target"] in NOT_WATCHED or (eyes.lasting and lease["target"] != IDENTITIES)
        cut = lease["access_ended_at"] is not None and not ends_itself
        expected = {
            "lease.intended": 1,
            "lease.activated": int(lease["activated_at"] is not None),
            "lease.reissued": lease["generation"] - 1,
            "lease.acknowledged": int(lease["acknowledged_at"] is not None),
            "lease.in_doubt": max(int(lease["state"] == "in_doubt"), said[lease["id"]]["lease.in_doubt"] and 1),
            # what was given up before anything was sent is over in one step
            "lease.revoking": int(lease["revoking_at"] is not None and not never_sent),
            "lease.access_ended": int(cut and not never_sent),
            "lease.closed": int(closed),
        }
        yield from _compare(f"the lease {lease['id']} ({lease['state']})", said[lease["id"]], expected)
        if closed != (lease["state"] in {"revoked", "expired", "disowned"}):
            yield f"the lease {lease['id']} is {lease['state']} and its end says otherwise"
        if lease["state"] == "active" and lease["activated_at"] is None:
            yield f"the lease {lease['id']} is active and never became so"
    unknown = rows(store, "SELECT lease FROM receipts WHERE lease IS NOT NULL AND lease NOT IN (SELECT id FROM leases)")
    yield from (f"a receipt tells of the lease {row['lease']}, which is not there" for row in unknown)


def _receipts(store: sqlite3.Connection, of: str) -> dict[str, Counter[str]]:
    said: dict[str, Counter[str]] = {row["id"]: Counter() for row in rows(store, f"SELECT id FROM {of}s")}
    for row in rows(store, f"SELECT {of} AS id, kind FROM receipts WHERE {of} IS NOT NULL"):
        said.setdefault(row["id"], Counter())[row["kind"]] += 1
    return said


def _compare(what: str, said: Counter[str], expected: dict[str, int]) -> Iterator[str]:
    for kind, count in expected.items():
        if said[kind] != count:
            yield f"{what} has {said[kind]} receipts `{kind}`, expected {count}"


def _events(store: sqlite3.Connection) -> Iterator[str]:
    numbers = [row["n"] for row in rows(store, "SELECT n FROM events ORDER BY n")]
    (counter,) = rows(store, "SELECT n FROM epoch")
    if numbers != list(range(1, counter["n"] + 1)):
        yield f"the events are not dense up to {counter['n']}"
    told = {row["task"] for row in rows(store, "SELECT task FROM events WHERE kind = 'task.ended'")}
    ended = {row["id"] for row in rows(store, "SELECT id FROM tasks WHERE ended_at IS NOT NULL")}
    if told != ended:
        yield f"ended tasks and told ends differ: {sorted(told ^ ended)}"


def _chains(store: sqlite3.Connection) -> Iterator[str]:
    heads: dict[str, tuple[int, str]] = {}
    for row in rows(store, "SELECT * FROM receipts ORDER BY writer, number"):
        number, previous = heads.get(row["writer"], (0, "0" * 64))
        receipt = {name: row[name] for name in ("kind", "actor", "task", "lease")}
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row["at"])
        receipt |= {"at": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "body": json.loads(row["body"])}
        canonical = json.dumps(receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        digest = hashlib.sha256()
        for part in (row["writer"].encode(), str(number + 1).encode(), previous.encode(), canonical):
            digest.update(len(part).to_bytes(8, "big") + part)
        if (row["number"], row["previous"], row["hash"]) != (number + 1, previous, digest.hexdigest()):
            yield f"the chain of {row['writer']} is broken at {row['number']}"
        heads[row["writer"]] = (row["number"], row["hash"])


def _identities(store: sqlite3.Connection, where: Outside, told: list[Any], late: bool) -> Iterator[str]:  # noqa: FBT001
    """Each that is in force is an open lease's, after a minute an active one's, and the other way round."""
    found = json.loads(where.registry.read_text()) if where.registry.exists() else {}
    standing = {name for name, task in found.items() if task not in {"", "-"}}
    leases = {row["name"]: row for row in rows(store, "SELECT * FROM leases WHERE target = ?", IDENTITIES)}
    open_ = {name for name, lease in leases.items() if lease["closed_at"] is None}
    active = {name for name, lease in leases.items() if lease["state"] == "active"}
    yield from (f"the identity {name} is in force without a lease" for name in standing - (active if late else open_))
    yield from (
        f"the lease of {name} is active, and there is no such identity"
        for name in active - standing - _released(store, told)
    )


async def _server(store: sqlite3.Connection, where: Outside, told: list[Any], late: bool) -> list[str]:  # noqa: FBT001
    leases = {
        row["name"]: row
        for row in rows(store, "SELECT * FROM leases")
        if row["target"] not in {*NOT_WATCHED, IDENTITIES, LENT}
    }
    open_ = {name for name, lease in leases.items() if lease["closed_at"] is None}
    active = {name for name, lease in leases.items() if lease["state"] == "active"}
    rightful = open_ if where.eyes.lasting else active
    planted = set() if late else {note["user"] for note in told if note["what"] == "planted"} - set(leases)
    seen = await where.eyes.principals(PREFIX)
    there = await _by_their_doors(where, told) if seen is None else seen
    if not late and any(note["what"] == "probing" for note in told):
        planted |= {name for name in there if name.rpartition("_")[2].startswith("probe")}
    found = []
    for name, may_log_in in there.items():
        if name in planted or (where.eyes.lingers and not may_log_in and not late):
            continue
        if name not in (rightful if late else open_):
            found.append(f"the role {name} is there, and no lease stands for it")
        elif name not in rightful and may_log_in:
            found.append(f"the role {name} may log in, and its lease is {leases[name]['state']}")
    lost = sorted(active - set(there)) if seen is not None else ()
    found += [f"the lease of {name} is active, and there is no such role" for name in lost]
    for number, name in await where.eyes.sessions(PREFIX):
        if name not in active:
            found.append(f"the session {number} of {name or 'a role that is gone'} is open")
    released = _released(store, told)
    return found + [fault async for fault in _doors(where, told, rightful, active - released, set(there))]


async def _by_their_doors(where: Outside, told: list[Any]) -> dict[str, bool]:
    """Where nobody can tell who there is: whoever was handed something that opens."""
    doors = [(note["user"], note["door"]) for note in told if note["what"] == "secret" and note.get("door")]
    return {user: True for user, door in doors if await where.eyes.opens(user, door)}


async def _lent(store: sqlite3.Connection, where: Outside, told: list[Any]) -> list[str]:
    """An account is open to the one lease that has it, and to nobody else."""
    states = {row["name"]: row for row in rows(store, "SELECT * FROM leases WHERE target = ?", LENT)}
    found = []
    for note in [note for note in told if note["what"] == "lent"]:
        opened, lease = await where.eyes.opens(note["account"], note["password"]), states[note["user"]]
        must_open = note["user"] not in _released(store, told)
        if opened and lease["state"] != "active":
            found.append(f"the password of {note['account']} still opens, and its lease is {lease['state']}")
        if not opened and lease["state"] == "active" and lease["acknowledged_at"] is not None and must_open:
            found.append(f"the lease of {note['account']} is active, and its password does not open")
    active = [name for name, row in states.items() if row["state"] == "active"]
    if len([name for name, row in states.items() if row["closed_at"] is None]) > 1:
        found.append("an account is lent twice")
    for account in {note["account"] for note in told if note["what"] == "lent"} if not active else ():
        found += [f"the session {number} of {account} is open" for number, _ in await where.eyes.sessions(account)]
    return found


async def _doors(where: Outside, told: list[Any], may: set[str], must: set[str], there: set[str]) -> AsyncIterator[str]:
    """Knock with every password that was ever handed over, or with a choice of those that could open."""
    over = {note["password"] for note in told if note["what"] == "secret" and _end_of(note) <= _now(where)}
    held = {(note["user"], note["password"]) for note in told if note["what"] == "held"}
    newest = {note["user"]: note["password"] for note in told if note["what"] == "secret"}
    secrets = {(note["user"], note["password"]) for note in told if note["what"] == "secret"}
    doors = {note["password"]: note["door"] for note in told if note["what"] == "secret" and note.get("door")}
    keys = sorted(one for one in secrets if one[0].startswith(PREFIX))
    if where.knocks is not None:
        keys = where.knocks([one for one in keys if one[0] in there])
    for user, password in keys:
        opened = await where.eyes.opens(user, doors.get(password, password))
        if opened and user not in may:
            yield f"the password of {user} still opens"
        if opened and password != newest[user]:
            yield f"the password of {user} that was replaced still opens"
        if not opened and user in must and (user, password) in held and password not in over:
            yield f"the lease of {user} is active and acknowledged, and its password does not open"


def _ends(store: sqlite3.Connection, eyes: Eyes, told: list[Any]) -> Iterator[str]:
    """What can't be taken back has a lease until it ended by itself, and nobody says that it was revoked."""
    leases = {row["name"]: row for row in rows(store, "SELECT * FROM leases")}
    handed = [note for note in told if note["what"] == "secret" and note.get("ends_at") and note["user"] in leases]
    for note in handed if eyes.lasting else ():
        lease = leases[note["user"]]
        if lease["state"] in {"revoked", "disowned"}:
            yield f"the lease of {note['user']} is {lease['state']}, and what it gave can't be taken back"
        if lease["closed_at"] is not None and lease["closed_at"] / 1e6 < _end_of(note):
            yield f"the lease of {note['user']} closed before its secret ended"


def _end_of(note: Any) -> float:
    """When a secret ends by itself, as the agent was told."""
    return datetime.fromisoformat(note["ends_at"]).timestamp() if note.get("ends_at") else math.inf


def _now(where: Outside) -> float:
    """By the clock of whoever lives there."""
    leapt = where.ahead.read_text() if where.ahead is not None and where.ahead.exists() else "0"
    return time.clock_gettime(time.CLOCK_REALTIME) + float(leapt)


def _released(store: sqlite3.Connection, told: list[Any]) -> set[str]:
    """Principals that may be disabled outside while the store could not be told (law 3): of leases, and of tasks."""
    tasks = {note.get("task") for note in told if note["what"] == "released"}
    held = {row["name"] for row in rows(store, "SELECT name, task FROM leases") if row["task"] in tasks}
    return held | {note.get("user", "") for note in told if note["what"] == "released"}


def _told(store: sqlite3.Connection, told: list[Any]) -> Iterator[str]:
    """What an agent was answered is so, whoever died since."""
    tasks = {row["id"]: row["ended_at"] for row in rows(store, "SELECT id, ended_at FROM tasks")}
    leases = {row["name"]: row["state"] for row in rows(store, "SELECT name, state FROM leases")}
    for note in told:
        if note["what"] in {"opened", "ended"} and note["task"] not in tasks:
            yield f"the task {note['task']} was {note['what']}, and is lost"
        elif note["what"] == "ended" and tasks[note["task"]] is None:
            yield f"the task {note['task']} was ended, and that is lost"
        elif note["what"] == "secret" and note["user"].startswith(PREFIX) and note["user"] not in leases:
            yield f"the lease of {note['user']} was handed over, and is lost"
        elif note["what"] == "given" and leases.get(note["user"]) == "active":
            yield f"the lease of {note['user']} was given back, and that is lost"


async def _secrets(where: Outside, told: list[Any]) -> AsyncIterator[str]:
    with where.eyes.log.open("rb") as file:
        file.seek(where.log_from)
        log = file.read()
    for name, content in [*(await where.store.contents()).items(), ("the server's log", log)]:
        for note in told:
            kept = [note["password"], *note.get("others", ())] if "password" in note else []
            if any(secret.encode() in content for secret in kept):
                yield f"the password of {note['user']} stands in {name}"
    for match in where.eyes.clear(log):
        yield f"the server was sent something other than a verifier: {match}"
