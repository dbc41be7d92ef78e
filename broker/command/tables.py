"""How tasks, leases, reports and findings look to a human; with `--json` they are what the broker told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel

from broker.model.report import Fate
from broker.model.role import NewAccess, OpenSessions
from broker.model.task import LIVE
from broker.wire.leases import GuaranteeTold, LeaseTold, QuarantinedTold
from broker.wire.reports import ReportLine, ReportTold
from broker.wire.targets import FindingTold
from broker.wire.tasks import TaskTold
from ca.runtime.terminal import Console, Style, Styled, duration, when

_FATES = {
    Fate.GONE: Style.GOOD,
    Fate.EXPIRED: Style.GOOD,
    Fate.NEVER_MADE: Style.DIM,
    Fate.NOT_VERIFIED: Style.BAD,
    Fate.IN_USE: Style.NOTE,
    Fate.ENDING: Style.WARN,
    Fate.LIVES_ON: Style.WARN,
}


def plain(found: BaseModel | Sequence[BaseModel]) -> Any:
    """What `--json` prints of what the broker told; a secret would hide here too."""
    if isinstance(found, BaseModel):
        return found.model_dump(mode="json")
    return [one.model_dump(mode="json") for one in found]


def tasks(console: Console, found: Sequence[TaskTold], now: datetime, *, empty: str = "no task lives") -> None:
    """One line each."""
    if console.json:
        console.result(plain(found))
        return
    console.table(
        ("task", "state", "purpose", "owner", "opened", "ends"),
        [
            (one.id, _state(one), one.purpose, str(one.owner), when(one.opened_at, now), _ends(one, now))
            for one in found
        ],
        empty=empty,
    )


def task(console: Console, one: TaskTold, now: datetime) -> None:
    """Everything about one, but its secrets."""
    scope = one.scope
    console.say(Styled(one.id, Style.BOLD), "  ", _state(one))
    rows = {
        "purpose": one.purpose,
        "owner": str(one.owner),
        "bound to": "its process" if one.bound else "a key",
        "part of": one.parent,
        "roles": ", ".join(scope.roles) or None,
        "tools": ", ".join(scope.tools) or None,
        "destinations": ", ".join(scope.destinations) or None,
        "up to": str(scope.sensitivity),
        "opened": when(one.opened_at, now),
        "ends": _ends(one, now) if one.ended_at is None else None,
        "ended": _ended(one, now),
    }
    shown = {name: value for name, value in rows.items() if value is not None}
    wide = max(map(len, shown))
    for name, value in shown.items():
        console.say(Styled(f"  {name.ljust(wide)}  ", Style.DIM), value)


def report(console: Console, found: ReportTold, now: datetime) -> None:
    """What was issued, and what became of each."""
    console.table(
        ("role", "lease", "became", "issued", "access ended", "seen by", "note"),
        [
            (
                line.role,
                line.lease,
                Styled(str(line.fate), _FATES[line.fate]),
                _when(line.issued_at, now),
                _when(line.access_ended_at, now),
                line.verified_by,
                _note(line, now),
            )
            for line in found.leases
        ],
        empty="no secret was issued",
    )


def leases(console: Console, found: Sequence[LeaseTold], now: datetime, *, empty: str = "no lease is open") -> None:
    """One line each."""
    if console.json:
        console.result(plain(found))
        return
    console.table(
        ("lease", "role", "state", "task", "until", "note"),
        [(one.id, one.role, str(one.state), one.task, when(one.until, now), _trouble(one)) for one in found],
        empty=empty,
    )


def quarantined(console: Console, found: Sequence[QuarantinedTold], now: datetime) -> None:
    """Rows that can't be read: what they stand for outside is left as it is."""
    if console.json:
        console.result(plain(found))
        return
    console.table(
        ("table", "row", "why", "since"),
        [(one.table, one.id, one.reason, when(one.since, now)) for one in found],
        empty="every row can be read",
    )


def findings(console: Console, found: Sequence[tuple[str, FindingTold]]) -> None:
    """What a check looked at: where, what, and what to do."""
    console.table(
        ("of", "looked at", "is", "detail", "to do"),
        [(of, one.name, verdict(one), one.detail, None if one.well else one.fix) for of, one in found],
        empty="nothing was looked at",
    )


def verdict(one: FindingTold) -> Styled:
    """Well, or not."""
    return Styled("well", Style.GOOD) if one.well else Styled("look here", Style.WARN)


def guarantee(told: GuaranteeTold) -> str:
    """What taking it back means, in one line."""
    ends = {
        NewAccess.AT_ONCE: "no login",
        NewAccess.AT_EXPIRY: "no login from its expiry on",
        NewAccess.AT_ROTATION: "no login from the next rotation on",
    }[told.new_access.ends]
    sessions = {
        OpenSessions.CUT: "sessions cut",
        OpenSessions.SURVIVE: "sessions survive",
        OpenSessions.NONE: "no sessions",
    }[told.open_sessions.are]
    rest = "" if told.open_sessions.are is OpenSessions.NONE else f" {_within(told.open_sessions.within)}"
    return f"{ends} {_within(told.new_access.within)}; {sessions}{rest}"


def _within(seconds: int | str) -> str:
    return f"within {duration(timedelta(seconds=seconds))}" if isinstance(seconds, int) else "at no known moment"


def _state(one: TaskTold) -> Styled:
    return Styled(str(one.state), Style.GOOD if one.state in LIVE else Style.DIM)


def _ends(one: TaskTold, now: datetime) -> str:
    if one.ended_at is not None:
        return f"ended {when(one.ended_at, now)}"
    return "with its process" if one.deadline is None else when(one.deadline, now)


def _ended(one: TaskTold, now: datetime) -> str | None:
    if one.ended_at is None:
        return None
    words = f": {one.end_words}" if one.end_words else ""
    return f"{when(one.ended_at, now)}, {one.end_reason}{words}"


def _when(moment: datetime | None, now: datetime) -> str | None:
    return None if moment is None else when(moment, now)


def _note(line: ReportLine, now: datetime) -> str | None:
    if line.fate is Fate.LIVES_ON:
        return "until it is replaced" if line.lives_until is None else f"ends by itself {when(line.lives_until, now)}"
    return line.trouble


def _trouble(one: LeaseTold) -> str | None:
    return one.trouble or (None if one.close_reason is None else str(one.close_reason))
