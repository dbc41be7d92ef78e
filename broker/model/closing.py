"""The closing report in one sentence: when access was gone, who confirmed, and what lives on until when.

access gone at +43 ms, 14 of 14 confirmed; 1 of bastion/login lives until 14:03:20
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta

from broker.model.report import Fate, Line, Report

_NAMED = 3
"""Of points that are missing, how many are named."""


def summary(report: Report) -> str:
    """The sentence; moments in UTC."""
    if report.ended_at is None:
        held = sum(line.fate is Fate.IN_USE for line in report.lines)
        return f"the task is {report.state}, secrets in use: {held}"
    parts = [*_given_up(report), f"{_access(report)}{_confirmed(report)}", *_lives(report)]
    return "; ".join(parts)


def _given_up(report: Report) -> Iterator[str]:
    """What nobody verified is said before anybody reads that all is gone."""
    count = sum(line.fate is Fate.NOT_VERIFIED for line in report.lines)
    if count:
        yield f"{count} given up, not verified"
    if report.unreadable:
        yield f"{report.unreadable} can't be read in the store, nothing is known of them"


def _access(report: Report) -> str:
    ending = [line for line in report.lines if line.fate in {Fate.IN_USE, Fate.ENDING}]
    made = [line for line in report.lines if line.fate not in {Fate.NEVER_MADE, Fate.NOT_VERIFIED}]
    if ending:
        where = ", ".join(sorted({line.role for line in ending})[:_NAMED])
        return f"access is being ended: {len(made) - len(ending)} of {len(made)} gone, not yet {where}"
    if report.access_gone_after is not None:
        return f"access gone at +{written_span(report.access_gone_after)}"
    if report.unreadable:
        return "the rest is gone"
    if made:
        return "nothing was out that could be taken back"
    return (
        "nothing else was given"
        if any(line.fate is Fate.NOT_VERIFIED for line in report.lines)
        else "nothing was given"
    )


def _confirmed(report: Report) -> str:
    if not report.expected:
        return f", {len(report.confirmed)} confirmed" if report.confirmed else ""
    missing = report.unconfirmed
    said = f", {len(report.expected) - len(missing)} of {len(report.expected)} confirmed"
    if not missing:
        return said
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return f"{said}, not yet {', '.join(missing[:_NAMED])}{more}"


def _lives(report: Report) -> Iterator[str]:
    on = [line for line in report.lines if line.fate is Fate.LIVES_ON]
    for role, count in sorted(Counter(line.role for line in on).items()):
        until = _until([line for line in on if line.role == role])
        yield f"{count} of {role} {'lives' if count == 1 else 'live'} {until}"
    sessions = sum(line.sessions_may_live and line.fate is not Fate.LIVES_ON for line in report.lines)
    if sessions:
        yield f"open sessions of {sessions} may live on"


def _until(lines: Sequence[Line]) -> str:
    moments = [line.lives_until for line in lines if line.lives_until is not None]
    if len(moments) < len(lines):
        return "until it is replaced where it is used"
    return f"until {max(moments):%H:%M:%S}"


def written_span(length: timedelta) -> str:
    """`43 ms`, `2.5 s`, `3 min 20 s`."""
    milliseconds = max(0, length // timedelta(milliseconds=1))
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(milliseconds // 1000, 60)
    return f"{minutes} min {seconds} s"
