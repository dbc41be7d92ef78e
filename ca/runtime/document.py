"""YAML, read strictly: what a file says is what its reader thinks it says.

YAML has more than one meaning for much of what people write: `no` is a country or a boolean, `010` is eight, `12:30` is
750, a key given twice silently wins over itself, and an alias can turn a kilobyte into a gigabyte. None of that is
decided here; it is refused, with the line, and the sentence says what to write instead. What remains is a tree of
mappings, lists, texts, decimal numbers, `true`, `false` and `null`, and the line of each of its nodes.

    document = read("port: 8080", "broker.yaml")
    document.value                  {"port": 8080}
    document.at(("port",))          "broker.yaml:1: port"

Every fault that can be told apart is reported, not only the first. A value under a key that looks like a secret is
never repeated.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ca.errors import Malformed
from ca.runtime.secret import sounds_secret

LARGEST = 1024 * 1024
"""Bytes in one file; the largest rule set we know of is a tenth of it."""

DEEPEST = 50
"""Levels of nesting."""

Step = str | int
Place = tuple[Step, ...]

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same events, thirty times faster

_AMBIGUOUS = frozenset({"yes", "no", "on", "off", "true", "false"})
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_OTHER_NUMBER = re.compile(
    r"""[-+]?( 0[0-9_]+ | 0[oO][0-7_]+ | 0[xX][0-9a-fA-F_]+ | 0[bB][01_]+   # octal, hexadecimal, binary
             | [0-9][0-9_]* | [0-9][0-9_]*\.[0-9_]* | \.[0-9][0-9_]*        # signs, underscores, too many digits
             | ([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)[eE][-+]?[0-9]+            # exponents
             | \.(inf|Inf|INF|nan|NaN|NAN) )""",
    re.VERBOSE,
)
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


class BadSettings(Malformed):
    """A file an operator wrote can't be used; `errors` are all its faults as `file:line: key: what was expected`."""

    code = "bad-settings"

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(self.errors))


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file says, and where it says it."""

    source: str
    value: Any
    lines: Mapping[Place, int]

    def line(self, place: Sequence[Step]) -> int:
        """The line of the node at `place`, or of the nearest one above it."""
        for length in range(len(place), -1, -1):
            found = self.lines.get(tuple(place[:length]))
            if found is not None:
                return found
        return 1

    def at(self, place: Sequence[Step]) -> str:
        """How an error begins: `file:line: key.path`."""
        return _at(self.source, self.line(place), place)


def looks_secret(place: Sequence[Step]) -> bool:
    """Whether the value at `place` must not be repeated, judged by the names of the keys above it."""
    return any(isinstance(step, str) and sounds_secret(step) for step in place)


def spelled(place: Sequence[Step]) -> str:
    """A place as people write it: `targets[0].name`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{shortened(step)}" for step in place)
    return text.removeprefix(".")


def shortened(text: str) -> str:
    """At most 60 printable characters of `text`, for a message."""
    return text[:60].encode("unicode_escape").decode("ascii")


def read_file(path: Path) -> Document:
    """Read the file at `path`. Raises BadSettings."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # never wait for a pipe's other end
    except OSError as error:
        raise BadSettings([f"{path}: can't be read: {(error.strerror or 'unknown reason').lower()}"]) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadSettings([f"{path}: can't be read: expected a regular file"])
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(content) > LARGEST:
        raise BadSettings([f"{path}: longer than {LARGEST} bytes"])
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadSettings([f"{path}:{line}: not UTF-8"]) from None
    return read(text, str(path))


def read(text: str, source: str) -> Document:
    """Read one YAML document out of `text`; `source` is what errors call it.

    Raises:
        BadSettings: it isn't YAML, isn't one document, or says something that has more than one meaning.
    """
    if len(text) > LARGEST:
        raise BadSettings([f"{source}: longer than {LARGEST} characters"])
    reader = _Reader(source)
    try:
        value = reader.document(yaml.parse(text, Loader=_LOADER))
    except yaml.YAMLError as error:
        raise BadSettings([*reader.errors, _syntax(error, text, source)]) from None
    except UnicodeEncodeError:
        raise BadSettings([f"{source}: not UTF-8"]) from None
    if reader.errors:
        raise BadSettings(reader.errors)
    return Document(source=source, value=value, lines=reader.lines)


@dataclass(slots=True)
class _Reader:
    """Builds the tree out of the parser's events; the recursion is bounded by DEEPEST."""

    source: str
    lines: dict[Place, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def document(self, events: Iterator[Any]) -> Any:
        value, documents = None, 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(event, (), "expected one document, not several")
                if event.version or event.tags:
                    self._refuse(event, (), "directives (`%YAML`, `%TAG`) are not read")
            elif isinstance(event, yaml.NodeEvent):
                value = self._node(event, events, ())
        return value

    def _node(self, event: Any, events: Iterator[Any], place: Place) -> Any:
        self.lines[place] = event.start_mark.line + 1
        if len(place) > DEEPEST:
            self._stop(event, place[:3], f"nested more than {DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._refuse(event, place, "aliases are not read: write the value again")
        if event.anchor is not None:
            self._refuse(event, place, "anchors are not read")
        if event.tag is not None:
            self._refuse(event, place, "tags are not read")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, place)
        return self._scalar(event, place)

    def _mapping(self, events: Iterator[Any], place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._key(event, place)
            inside = (*place, key)
            if key in found:
                self._refuse(event, inside, f"given twice, first in line {self.lines[inside]}")
                inside = (*place, f"{key}, again")
            value = self._node(next(events), events, inside)
            if key not in found:
                found[key] = value
                self.lines[inside] = event.start_mark.line + 1
        return found

    def _key(self, event: Any, place: Place) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self._stop(event, place, "expected a text as the key")
        if event.anchor is not None or event.tag is not None:
            self._refuse(event, place, "anchors and tags are not read")
        text = str(event.value)
        if not event.style and text == "<<":
            self._refuse(event, place, "merge keys are not read: write the values again")
        elif not event.style and not isinstance(self._plain(event, (*place, text), text), str):
            self._refuse(event, place, f"expected a text as the key: quote `{shortened(text)}`")
        return text

    def _sequence(self, events: Iterator[Any], place: Place) -> list[Any]:
        found: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            found.append(self._node(event, events, (*place, len(found))))
        return found

    def _scalar(self, event: Any, place: Place) -> Any:
        return event.value if event.style else self._plain(event, place, event.value)

    def _plain(self, event: Any, place: Place, text: str) -> Any:
        """What a scalar without quotes means; a text stands for every refused one."""
        if text in {"", "~", "null"}:
            return None
        if text in {"true", "false"}:
            return text == "true"
        if _WHOLE.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return float(text)
        shown = "this value" if looks_secret(place) else f"`{shortened(text)}`"
        if text.lower() in _AMBIGUOUS:
            self._refuse(event, place, f"{shown} is not a boolean everywhere: write true or false, or quote it")
        elif text.lower() == "null":
            self._refuse(event, place, f"{shown} is not null everywhere: write null, or quote it")
        elif _SEXAGESIMAL.fullmatch(text):
            self._refuse(event, place, f"{shown} may be read as a number of base 60: quote it")
        elif _OTHER_NUMBER.fullmatch(text):
            self._refuse(event, place, f"{shown} is no plain decimal number: write it out, or quote it")
        return text

    def _refuse(self, event: Any, place: Place, why: str) -> None:
        self.errors.append(f"{_at(self.source, event.start_mark.line + 1, place)}: {why}")

    def _stop(self, event: Any, place: Place, why: str) -> None:
        self._refuse(event, place, why)
        raise BadSettings(self.errors)


def _at(source: str, line: int, place: Sequence[Step]) -> str:
    return f"{source}:{line}: {spelled(place)}" if place else f"{source}:{line}"


def _syntax(error: yaml.YAMLError, text: str, source: str) -> str:
    """The parser's own words, without the piece of text it stumbled over."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return f"{_at(source, mark.line + 1 if mark else 1, ())}: not YAML: {error.problem or error.context}"
    line = text.count("\n", 0, getattr(error, "position", 0)) + 1
    return f"{_at(source, line, ())}: not YAML: special characters are not allowed"
