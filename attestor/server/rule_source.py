"""The rules in force: read at the start, read again when a file changed, and never replaced by a bad one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from attestor.errors import BadRules
from attestor.rules.model import Rule, RuleSet
from attestor.rules.read import Terms, read_rules
from ca.runtime import log
from ca.runtime.document import LARGEST

_log = log.get(__name__)
_Seen = tuple[tuple[str, int, int, int], ...]


class RuleSource:
    """Files of rules behind the server's own; a folder stands for every `*.yaml` in it, by name."""

    def __init__(self, places: Sequence[Path], terms: Terms, own: Sequence[Rule] = ()) -> None:
        self._places, self._terms, self._own = tuple(places), terms, tuple(own)
        self._subscribers: list[Callable[[], object]] = []
        self._seen = self._look()
        self.trouble: tuple[str, ...] = ()
        """Why the newest files are not in force; empty when they are."""
        self.current: RuleSet = self._read()
        """The rules in force."""

    def subscribe(self, callback: Callable[[], object]) -> None:
        """Call `callback` after every change of the rules in force."""
        self._subscribers.append(callback)

    async def tick(self, now: datetime) -> None:  # noqa: ARG002 -- the signature of a tick
        """Read the files again if one of them changed."""
        if self._look() != self._seen:
            self.reload()

    def reload(self) -> bool:
        """Read the files again; False when they are bad, and what was good stays in force."""
        self._seen = self._look()
        try:
            found = self._read()
        except BadRules as error:
            self.trouble = error.errors
            _log.error("rules refused, the former ones stay in force", faults=list(error.errors))
            return False
        self.trouble = ()
        if found.version != self.current.version:
            self.current = found
            _log.info("rules in force", version=found.version, rules=len(found.rules))
            for callback in list(self._subscribers):
                callback()
        self.current = found
        return True

    def _read(self) -> RuleSet:
        files: list[tuple[str, str]] = []
        errors: list[str] = []
        for path in self._files():
            try:
                files.append((str(path), _text(path)))
            except (OSError, UnicodeDecodeError, ValueError) as error:
                errors.append(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}")
        if errors:
            raise BadRules(errors)
        read = read_rules(files, self._terms)
        names = {rule.name for rule in self._own}
        if doubles := [
            f"{rule.source}: name: `{rule.name}` is the server's own" for rule in read.rules if rule.name in names
        ]:
            raise BadRules(doubles)
        for warning in read.warnings:
            _log.warning("suspicious rule", warning=warning)
        return replace(read, rules=(*self._own, *read.rules))

    def _files(self) -> list[Path]:
        return [path for place in self._places for path in self._listed(place)]

    @staticmethod
    def _listed(place: Path) -> list[Path]:
        try:
            return sorted(place.glob("*.yaml")) if place.is_dir() else [place]
        except OSError:  # whoever reads it will say why
            return [place]

    def _look(self) -> _Seen:
        """What tells one state of the files from another, without reading them."""
        seen: list[tuple[str, int, int, int]] = []
        for path in self._files():
            try:
                found = path.stat()
            except OSError:
                seen.append((str(path), 0, 0, 0))
            else:
                seen.append((str(path), found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(seen)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"longer than {LARGEST} bytes")
    return content.decode()
