"""The order of the house: import contracts, and the two things import-linter can't see."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from house.tree import PACKAGES, ROOT, shown, sources, strings

NAME = re.compile(r"(ca|attestor|broker)(\.[A-Za-z_]\w*)+(:[A-Za-z_]\w*)?")


def test_every_import_contract_is_kept() -> None:
    """Floors, choke points, who may sign: as pyproject.toml has them."""
    found = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_folder_with_code_is_a_package() -> None:
    """A folder without __init__.py is invisible to the contracts."""
    folders = {path.parent for path in sources()}
    assert [shown(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_no_folder_of_tests_is_a_package() -> None:
    """tests/unit/ca as a package would hide the real one."""
    assert [shown(path) for path in (ROOT / "tests").rglob("__init__.py")] == []


def test_every_name_in_a_visible_table_resolves() -> None:
    """Imports by string are invisible to the contracts; those that are there must lead somewhere."""
    broken = [
        f"{shown(path)}:{line}: `{name}`" for path, line, name in _loaded_by_name() if not _resolves(name)
    ]  # fmt: skip
    assert broken == []


def test_the_tables_were_found() -> None:
    """The test above looked at something."""
    names = {name for _, _, name in _loaded_by_name()}
    assert {"broker.engines.postgres", "ca.keys.disk", "broker.command.up:up"} <= names


def test_only_the_product_is_imported_by_the_product() -> None:
    """Nothing reaches into tests."""
    pattern = re.compile(r"^\s*(from|import) (tests|fakes|servers|house)\b", re.MULTILINE)
    assert [shown(path) for path in sources() if pattern.search(path.read_text())] == []


def _loaded_by_name() -> Iterator[tuple[Path, int, str]]:
    for path in sources(*PACKAGES):
        if "import_module" in path.read_text() or "MappingProxyType" in path.read_text():
            yield from ((path, line, name) for line, name in strings(path) if NAME.fullmatch(name))


def _resolves(name: str) -> bool:
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)  # noqa: TID251 - the point of the test
    except ModuleNotFoundError:
        return False
    return not attribute or hasattr(found, attribute)
