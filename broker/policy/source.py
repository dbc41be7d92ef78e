"""Files of Cedar text into one policy set with a version: taken whole, or refused whole with every fault named.

A set that can't be read never replaces one that can (`PolicyHolder`). The version is a digest of every file's content
and of the schema: two brokers that answer under one version answered by the same text.

Replace a file by renaming over it: a file that changes while it is read is refused, because the first half of a set may
well be a valid set without the forbids of the second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from pathlib import Path

import cedarpy
from cedarpy import pst

from broker.policy.check import faults
from broker.policy.decide import BUILT_IN
from broker.policy.slices import Policy, PolicySet
from broker.policy.statements import statements
from ca.errors import Malformed

_LARGEST = 4 * 1024 * 1024
_MOST_FILES = 256
_SUFFIX = ".cedar"
_STARTER = "starter.cedar"
_SCHEMA = "schema.cedarschema"


class BadPolicy(Malformed):
    """A policy set that can't be used; `faults` are all of them, each with its file, line and policy."""

    code = "bad-policy"

    def __init__(self, found: Iterable[str]) -> None:
        self.faults = tuple(found)
        super().__init__("; ".join(self.faults))


@dataclass(frozen=True, slots=True)
class PolicySource:
    """Where policies are: files, and folders whose `*.cedar` files count."""

    paths: tuple[Path, ...]

    @classmethod
    def of(cls, *paths: Path | str) -> PolicySource:
        """The source made of `paths`."""
        return cls(tuple(Path(path) for path in paths))

    def load(self) -> PolicySet:
        """Read and judge everything. Raises BadPolicy."""
        return parse(dict(_texts(self.paths)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What came of a reload: `problem` is None when `version` now holds (`changed`: and did not before)."""

    at: datetime
    version: str
    changed: bool
    problem: BadPolicy | None


class PolicyHolder:
    """The policy set in force; a bad one never replaces it."""

    def __init__(self, source: PolicySource | None) -> None:
        """Load the first set, the starter set without a source. Raises BadPolicy: there is nothing to fall back on."""
        self._source = source
        self._current = self._load()

    @property
    def current(self) -> PolicySet:
        """The newest good set."""
        return self._current

    def reload(self, now: datetime) -> Reloaded:
        """Read again; on any fault the set in force stays and the fault is in the answer."""
        before = self._current.version
        try:
            loaded = self._load()
        except BadPolicy as problem:
            return Reloaded(at=now, version=before, changed=False, problem=problem)
        if loaded.version != before:
            self._current = loaded
        return Reloaded(at=now, version=loaded.version, changed=loaded.version != before, problem=None)

    def _load(self) -> PolicySet:
        return starter() if self._source is None else self._source.load()


def starter() -> PolicySet:
    """What `sojourn up` begins with."""
    return parse({_STARTER: resources.files("broker.policy").joinpath(_STARTER).read_text()})


def parse(texts: Mapping[str, str]) -> PolicySet:
    """A policy set from texts by the names of their files.

    Raises:
        BadPolicy: with every fault of every text.
    """
    found: list[str] = []
    places: dict[str, str] = {}
    policies = [policy for name, text in sorted(texts.items()) for policy in _read(name, text, places, found)]
    if not found and not policies:
        found.append("there is no policy, so nothing would ever be permitted")
    if found:
        raise BadPolicy(found)
    return PolicySet(policies, schema(), _version(texts.values()))


@cache
def schema() -> cedarpy.Schema:
    """The schema every policy and every request is checked against."""
    return cedarpy.Schema.from_str(_schema_text())


def _schema_text() -> str:
    return resources.files("broker.policy").joinpath(_SCHEMA).read_text()


def _version(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in [_schema_text(), *sorted(texts)]:
        content = text.encode()
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()


def _texts(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    files = [file for path in paths for file in _files(path)]
    if len(set(files)) > _MOST_FILES:
        raise BadPolicy([f"more than {_MOST_FILES} files of policies"])
    for file in dict.fromkeys(files):
        yield str(file), _content(file)


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob(f"*{_SUFFIX}"))
    if not found:
        raise BadPolicy([f"{path}: the folder has no file `*{_SUFFIX}`"])
    return found


def _content(path: Path) -> str:
    try:
        before = path.stat()
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        after = path.stat()
    except OSError as error:
        raise BadPolicy([f"{path}: can't be read: {error.strerror}"]) from error
    if len(content) > _LARGEST:
        raise BadPolicy([f"{path}: is larger than {_LARGEST} bytes"])
    if (before.st_ino, before.st_mtime_ns, before.st_size) != (after.st_ino, after.st_mtime_ns, len(content)):
        raise BadPolicy([f"{path}: changed while it was read, expected it to be replaced by a rename"])
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BadPolicy([f"{path}: is not UTF-8"]) from error


def _read(name: str, text: str, places: dict[str, str], found: list[str]) -> Iterator[Policy]:
    """The policies of one text; where each `@id` was first used goes to `places`, what is wrong to `found`."""
    try:
        parsed = cedarpy.policies_to_pst(text)
    except ValueError as error:
        found.extend(_syntax(name, text, error))
        return
    lines = [line for line, _ in statements(text)]
    result = cedarpy.validate_policies(text, schema())
    trees = {**parsed.static_policies, **parsed.templates}
    for key in sorted(trees, key=_position):
        tree, place = trees[key], f"{name}:{lines[_position(key)]}"
        identity = tree.annotations.get("id", "")
        spoken = f"{place}: policy `{identity or key}`"
        wrong = [f"{spoken}: {fault}" for fault in faults(tree, BUILT_IN)]
        first = places.setdefault(identity, place) if identity else place
        if first != place:
            wrong.append(f"{spoken}: its `@id` is taken by the policy at {first}")
        ours = (one.error for one in result.errors if one.policy_id == key)
        wrong += [f"{spoken}: {fault.removeprefix(f'for policy `{key}`, ')}" for fault in dict.fromkeys(ours)]
        found.extend(wrong)
        if not wrong:
            yield _policy(tree, identity, place)
    found.extend(f"{name}: {one.error}" for one in result.errors if one.policy_id not in trees)


def _policy(tree: pst.Template, identity: str, place: str) -> Policy:
    said = "permitted" if tree.effect == "permit" else "forbidden"
    reason = tree.annotations.get("reason", f"{said} by the policy `{identity}`")
    named = pst.Template(
        id=identity,
        effect=tree.effect,
        principal=tree.principal,
        action=tree.action,
        resource=tree.resource,
        clauses=tree.clauses,
        annotations=tree.annotations,
    )
    return Policy(id=identity, reason=reason, place=place, tree=named)


def _position(key: str) -> int:
    """Cedar numbers the policies of a text `policy0`, `policy1` … in their order."""
    return int(key.removeprefix("policy"))


def _syntax(name: str, text: str, error: ValueError) -> Iterator[str]:
    """Cedar doesn't say where a text breaks; so each statement is read by itself."""
    broken = False
    for line, statement in statements(text):
        try:
            cedarpy.policies_to_pst(statement)
        except ValueError as trouble:
            broken = True
            yield f"{name}:{line}: {trouble}"
    if not broken:
        yield f"{name}: {error}"
