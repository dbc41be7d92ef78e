"""What a process tells its operator: one event per line, and no secret in any of them.

    log = get(__name__)
    log.info("task ended", task=task.id, reason=reason)
    log.error("revocation failed", lease=lease.id, error=problem)

An event is a few fixed words; what it is about stands in fields. Four walls keep secrets out. A `Secret` hides itself.
Bytes are counted, not shown. A field whose name sounds secret is dots. What looks like a private key, a bearer token, a
JWT, a join token or a password in a URL is cut out of every text. Exceptions that are not a `Problem` were written by
others, who may have put anything into their text: only their type and the places they passed are told.

Records of other libraries come through the same formatter; of theirs only the first line is kept.
"""

from __future__ import annotations

import json as json_format
import logging
import math
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from ca.errors import Problem
from ca.runtime.secret import DOTS, Secret, sounds_secret

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Names the request or tick being worked on; every line written meanwhile carries it."""

_OURS = ("ca", "attestor", "broker")
_LONGEST_TEXT = 2000
_DEEPEST = 4
_MOST_FRAMES = 12
_FIELDS = "sojourn_fields"
_RESERVED = frozenset({"time", "level", "process", "logger", "event", "request"})
_SCRUBBED = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), DOTS),
    (re.compile(r"\b(bearer|basic|dpop)\s+[^\s,;\"']+", re.IGNORECASE), rf"\1 {DOTS}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), DOTS),
    (re.compile(r"\bsj1\.([\w-]+)\.[\w-]+"), rf"sj1.\1.{DOTS}"),
    (re.compile(r"(\w://[^\s/:@]*):[^\s/@]+@"), rf"\1:{DOTS}@"),
    (
        re.compile(r"\b(password|passwd|pwd|secret|token)(\s*[=:]\s*)('[^']*'|\"[^\"]*\"|[^\s,;&]+)", re.IGNORECASE),
        rf"\1\2{DOTS}",
    ),
)


class Logger:
    """Writes events under one name; made by `get`."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **fields: object) -> None:
        """For whoever looks into this very part."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What a healthy process does."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """What was refused, or failed and will be tried again."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        """What somebody has to look at."""
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", event, extra={_FIELDS: fields})


def get(name: str) -> Logger:
    """The logger of the module `name`."""
    return Logger(logging.getLogger(name))


def setup(process: str, *, level: str = "info", stream: TextIO | None = None, json: bool | None = None) -> None:
    """Write the events of this process to `stream` (stderr), as JSON unless that is a terminal or `json` decides."""
    target = sys.stderr if stream is None else stream
    handler = _Handler(target)
    handler.setFormatter(_Formatter(process, json=not target.isatty() if json is None else json))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for package in _OURS:
        logging.getLogger(package).setLevel(level.upper())


@contextmanager
def request(identifier: str | None = None) -> Iterator[str]:
    """Name the work done inside; without `identifier` by 16 random hexadecimal digits."""
    name = identifier or secrets.token_hex(8)
    token = request_id.set(name)
    try:
        yield name
    finally:
        request_id.reset(token)


def scrubbed(text: str) -> str:
    """`text` without what looks like a secret, and not longer than a log line should be."""
    for pattern, instead in _SCRUBBED:
        text = pattern.sub(instead, text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text)} characters)"


def told(error: BaseException) -> dict[str, Any]:
    """What a log may know of `error`: of a Problem its sentence and its cause, of others type and places."""
    found: dict[str, Any] = {"type": type(error).__name__}
    if isinstance(error, Problem):
        found |= {"code": error.code, "says": scrubbed(str(error))}
        if error.details:
            found["details"] = _safe("details", dict(error.details), 0)
    else:
        found |= _known_facts(error)
        found["at"] = _places(error)
    if isinstance(error, BaseExceptionGroup):
        found["errors"] = [told(inner) for inner in error.exceptions[:_MOST_FRAMES]]
    if error.__cause__ is not None:
        found["cause"] = told(error.__cause__)
    return found


def _known_facts(error: BaseException) -> dict[str, Any]:
    """Facts with a closed vocabulary: they help, and no secret fits into them."""
    facts: dict[str, Any] = {}
    if isinstance(error, OSError) and error.strerror and isinstance(error.errno, int):
        facts["says"] = error.strerror
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str) and len(state) == 5 and state.isalnum():
        facts["sqlstate"] = state
    return facts


def _places(error: BaseException) -> list[str]:
    places, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{'/'.join(code.co_filename.split('/')[-3:])}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return places[-_MOST_FRAMES:]


def _safe(name: str, value: object, depth: int) -> Any:
    if isinstance(value, Secret) or (sounds_secret(name) and isinstance(value, (str, bytes, Mapping, list, tuple))):
        return DOTS
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no other
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if isinstance(value, BaseException):
        return told(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {str(key): _safe(str(key), inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) and depth < _DEEPEST:
        return [_safe("", inner, depth + 1) for inner in value]
    return scrubbed(str(value))


class _Formatter(logging.Formatter):
    def __init__(self, process: str, *, json: bool) -> None:
        super().__init__()
        self._process = process
        self._json = json

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, object] = getattr(record, _FIELDS, {})
        message = record.getMessage()
        safe = {name if name not in _RESERVED else f"{name}_": _safe(name, value, 0) for name, value in fields.items()}
        if record.exc_info and record.exc_info[1] is not None:
            safe["error"] = told(record.exc_info[1])
        head: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "event": scrubbed(message.partition("\n")[0]),
        }
        if (named := request_id.get()) is not None:
            head["request"] = named
        if self._json:
            return json_format.dumps({**head, **safe}, ensure_ascii=False, default=str)
        return _human(head, safe)


def _human(head: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    """One line for a terminal; line breaks and control characters are escaped so that nobody can forge another."""
    parts = [head["time"][11:23], f"{head['level']:<7}", _printable(head["event"])]
    parts += [f"{name}={_written(value)}" for name, value in fields.items()]
    if "request" in head:
        parts.append(f"request={_printable(head['request'])}")
    return " ".join(parts)


def _written(value: Any) -> str:
    if isinstance(value, dict) and "type" in value:
        return _printable(f"«{value.get('says', value['type'])}»")
    text = value if isinstance(value, str) else json_format.dumps(value, ensure_ascii=False, default=str)
    return _printable(f"«{text}»" if " " in text and isinstance(value, str) else text)


def _printable(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()
        for letter in text
    )


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name logging calls
        """Say that a line was lost, and not what was in it: the default prints the arguments."""
        kind = sys.exc_info()[0]
        try:
            self.stream.write(
                f"a line of `{record.name}` could not be written: {kind.__name__ if kind else 'unknown'}\n"
            )
        except (OSError, ValueError):
            return  # the stream itself is gone; nobody is left to be told
