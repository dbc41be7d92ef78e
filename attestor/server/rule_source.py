"""The rules in force: read at the start, read again when a file changed, and never replaced by a bad one.

They come in parts: the server's own, those of the operators' files, and those of each owner. A part with a fault keeps
its former rules, and no other part is touched by it: one team's mistake is that team's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from attestor.errors import BadRules
from attestor.rules.evaluate import Evaluation
from attestor.rules.model import Rule, RuleSet
from attestor.rules.owner import Owner
from attestor.rules.read import Terms, read_part, rule_set
from ca.runtime import log
from ca.runtime.document import LARGEST

_log = log.get(__name__)
Seen = tuple[tuple[str, int, int, int], ...]
"""What tells one state of the files from another."""


@dataclass(slots=True, eq=False)
class Part:
    """Files that are read together; a folder stands for every `*.yaml` in it, by name."""

    places: Sequence[Path]
    owner: Owner | None = None
    rules: tuple[Rule, ...] = ()
    trouble: tuple[str, ...] = field(default=())

    def read(self, terms: Terms, instead: tuple[Path, str] | None = None) -> tuple[Rule, ...]:
        """The rules that stand in the files; `instead` is a file and the text to read in its place.

        Raises:
            BadRules: one can't be read, or has a fault.
        """
        files: list[tuple[str, str]] = []
        errors: list[str] = []
        for path in self.files(instead[0] if instead else None):
            try:
                files.append((str(path), instead[1] if instead and path == instead[0] else _text(path)))
            except (OSError, UnicodeDecodeError, ValueError) as error:
                errors.append(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}")
        if errors:
            raise BadRules(errors)
        return read_part(files, terms, self.owner)

    def files(self, more: Path | None = None) -> list[Path]:
        """Every file, in order; `more` is one that may yet come to be in one of the folders."""
        return [path for place in self.places for path in _listed(place, more)]

    def holds(self, path: Path) -> bool:
        """Whether `path` is, or would be, one of the files."""
        return path in self.files(path)


class RuleSource:
    """Everything that may hold rules, and what is in force of it."""

    def __init__(
        self,
        places: Sequence[Path],
        terms: Terms,
        own: Sequence[Rule] = (),
        owners: Sequence[tuple[Owner, Sequence[Path]]] = (),
    ) -> None:
        self.terms, self._own = terms, tuple(own)
        self.parts = (Part(tuple(places)), *(Part(tuple(files), owner) for owner, files in owners))
        self._subscribers: list[Callable[[], object]] = []
        self.seen = self.look()
        faults = self._read_again()
        if self.parts[0].trouble:
            raise BadRules(faults)
        self.evaluation = Evaluation(self._assembled())

    @property
    def current(self) -> RuleSet:
        """The rules in force."""
        return self.evaluation.rules

    @property
    def trouble(self) -> tuple[str, ...]:
        """Why the newest files are not all in force; empty when they are."""
        return tuple(fault for part in self.parts for fault in part.trouble)

    def subscribe(self, callback: Callable[[], object]) -> None:
        """Call `callback` after every change of the rules in force."""
        self._subscribers.append(callback)

    async def tick(self, now: datetime) -> None:  # noqa: ARG002 -- the signature of a tick
        """Read the files again if one of them changed."""
        if self.look() != self.seen:
            self.reload()

    def reload(self) -> bool:
        """Read the files again; False when some are bad, and what was good of them stays in force."""
        self.seen = self.look()
        if faults := self._read_again():
            _log.error("rules refused, the former ones stay in force", faults=list(faults))
        found, before = self._assembled(), self.current
        if found.version != before.version:
            self.evaluation = Evaluation(found)
            _log.info("rules in force", version=found.version, rules=len(found.rules))
            for callback in list(self._subscribers):
                callback()
        elif not faults and found != before:
            self.evaluation = Evaluation(found)  # the same decisions, from other lines
        return not faults

    def draft(self) -> RuleSet:
        """What `reload` would bring into force; nothing is changed."""
        parts: list[tuple[Rule, ...]] = []
        for part in self.parts:
            try:
                rules = part.read(self.terms)
                self._checked([*parts, rules])
            except BadRules:
                rules = part.rules
            parts.append(rules)
        whole = [rule for part in parts for rule in part]
        return self._with_own(rule_set(whole, replace(self.terms, strict=False)))

    def tried(self, path: Path, text: str) -> RuleSet:
        """What would be in force if `path` held `text`; nothing is changed.

        Raises:
            BadRules: it would be refused, or no part reads a file of that name.
        """
        part = next((one for one in self.parts if one.holds(path)), None)
        if part is None:
            raise BadRules([f"{path}: no setting names this file: expected one of `rules` or of an owner's"])
        rules = part.read(self.terms, (path, text))
        return self._checked([rules if one is part else one.rules for one in self.parts])

    def _read_again(self) -> list[str]:
        """Take over every part that is good; answers the faults of the others."""
        for index, part in enumerate(self.parts):
            try:
                rules = part.read(self.terms)
                self._checked([*(one.rules for one in self.parts[:index]), rules])
            except BadRules as error:
                part.trouble = error.errors
            else:
                part.rules, part.trouble = rules, ()
        return list(self.trouble)

    def _checked(self, parts: Sequence[Sequence[Rule]]) -> RuleSet:
        names = {rule.name for rule in self._own}
        rules = [rule for part in parts for rule in part]
        if doubles := [
            f"{rule.source}: name: `{rule.name}` is the server's own" for rule in rules if rule.name in names
        ]:
            raise BadRules(doubles)
        return self._with_own(rule_set(rules, self.terms))

    def _assembled(self) -> RuleSet:
        """All that is good; one part's new rules may have made another's former ones suspicious, and those stay."""
        rules = [rule for part in self.parts for rule in part.rules]
        found = self._with_own(rule_set(rules, replace(self.terms, strict=False)))
        for warning in found.warnings:
            _log.warning("suspicious rule", warning=warning)
        return found

    def _with_own(self, found: RuleSet) -> RuleSet:
        return RuleSet(trust_domain=found.trust_domain, rules=(*self._own, *found.rules), warnings=found.warnings)

    def look(self) -> Seen:
        """What tells one state of the files from another, without reading them."""
        seen: list[tuple[str, int, int, int]] = []
        for path in (path for part in self.parts for path in part.files()):
            try:
                found = path.stat()
            except OSError:
                seen.append((str(path), 0, 0, 0))
            else:
                seen.append((str(path), found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(seen)


def _listed(place: Path, more: Path | None) -> list[Path]:
    try:
        if not place.is_dir():
            return [place]
        found = set(place.glob("*.yaml"))
    except OSError:  # whoever reads it will say why
        return [place]
    if more is not None and more.parent == place and more.suffix == ".yaml":
        found.add(more)
    return sorted(found)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"longer than {LARGEST} bytes")
    return content.decode()
