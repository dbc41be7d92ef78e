"""requirements.lock, and the one of what only tests drive: every version with its hashes, and no host."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from house.tree import ROOT

TEXT = (ROOT / "requirements.lock").read_text()
FOREIGN = (ROOT / "tests/servers/requirements.lock").read_text()
MUTANTS = (ROOT / "tests/mutants/requirements.lock").read_text()
PEERS = (ROOT / "tests/bench/requirements.lock").read_text()
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
LOCKED = {canonicalize_name(name): version for name, version in ENTRY.findall(f"{PEERS}\n{MUTANTS}\n{FOREIGN}\n{TEXT}")}


def required() -> Iterator[Requirement]:
    """Every requirement of pyproject.toml, of the extras and of the build too; our own name left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    texts = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        texts += extra
    yield from (found for text in texts if (found := Requirement(text)).name != "sojourn")


def test_it_names_no_host() -> None:
    """Whoever installs decides where from."""
    for word in ("://", "index-url", "find-links"):
        assert word not in TEXT + FOREIGN + MUTANTS + PEERS


def test_what_both_lock_is_one_version() -> None:
    """Installed one after the other, the second must not replace what the first brought."""
    first = {canonicalize_name(name): version for name, version in ENTRY.findall(TEXT)}
    for text in (FOREIGN, MUTANTS, PEERS):
        second = {canonicalize_name(name): version for name, version in ENTRY.findall(text)}
        assert [name for name in first.keys() & second.keys() if first[name] != second[name]] == []


def test_every_requirement_is_locked_within_its_bounds() -> None:
    """A dependency added to pyproject.toml and not locked would be another one on every machine."""
    wrong = [
        str(found)
        for found in required()
        if canonicalize_name(found.name) not in LOCKED or LOCKED[canonicalize_name(found.name)] not in found.specifier
    ]
    assert wrong == []


def test_every_entry_has_a_hash() -> None:
    """The installer is told --require-hashes."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", f"{TEXT.strip()}\n{FOREIGN.strip()}\n{MUTANTS.strip()}\n{PEERS.strip()}")
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
