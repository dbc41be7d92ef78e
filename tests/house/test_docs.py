"""What the documents say is so: links resolve, drawn pages are fresh, help is the command's own, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from attestor.methods.node import NODE_METHODS
from attestor.methods.workload import WORKLOAD_SOURCES
from broker.command import COMMANDS, root
from broker.engines import ENGINES
from house import draw_states
from house.tree import ROOT, shown

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
EXAMPLE = re.compile(r"^\[examples/(\S+)\]\(\S+\)\n\n```[a-z]+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|[\s`(])sojourn ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")


def anchors(page: Path) -> set[str]:
    """The names a page's headings can be linked by."""
    titles = HEADING.findall(BLOCK.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading it has."""
    broken = []
    for target in LINK.findall(BLOCK.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_command_in_a_code_block_exists(page: Path) -> None:
    """And so does its subcommand."""
    wrong = []
    for block in BLOCK.findall(page.read_text()):
        for name, sub in COMMAND.findall(block):
            command = root.get_command(click.Context(root), name) if name in COMMANDS else None
            if command is None or (sub and isinstance(command, click.Group) and sub not in command.commands):
                wrong.append(f"sojourn {name} {sub}".strip())
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_help_in_a_document_is_the_commands_own(page: Path) -> None:
    """A block that begins with `Usage: sojourn` is what that command prints."""
    for block in BLOCK.findall(page.read_text()):
        if block.startswith("Usage: sojourn"):
            words = block.partition("\n")[0].removeprefix("Usage: sojourn").split("[")[0].split()
            shown_help = CliRunner().invoke(root, [*words, "--help"], prog_name="sojourn").output
            assert block == shown_help


def test_an_example_in_a_document_is_the_file_that_tests_run() -> None:
    """A block that follows a link to a file of examples/ alone on its line is that file, and each agent is shown."""
    shown_examples = EXAMPLE.findall((ROOT / "docs" / "client.md").read_text())
    assert {name: text for name, text in shown_examples if text != (ROOT / "examples" / name).read_text()} == {}
    assert {name for name, _ in shown_examples} == {path.name for path in (ROOT / "examples").iterdir()} - {
        "who_calls.py"
    }


@pytest.mark.parametrize("page", draw_states.pages(), ids=str)
def test_a_drawn_page_is_fresh(page: Path) -> None:
    """`python tests/house/draw_states.py --write` brings it up to date."""
    assert (ROOT / page).read_text() == draw_states.pages()[page]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    """Of each one that does something, with the word `Example`."""
    found = root.get_command(click.Context(root), command)
    assert found is not None
    leaves = list(found.commands.values()) if isinstance(found, click.Group) else [found]
    assert [leaf.name for leaf in leaves if "Example" not in (leaf.help or "") + (leaf.epilog or "")] == []


def test_every_plug_in_has_its_page() -> None:
    """One per engine and per method."""
    pages = [f"docs/engines/{kind}.md" for kind in ENGINES]
    pages += [f"docs/attestation/{name.replace('_', '-')}.md" for name in (*NODE_METHODS, *WORKLOAD_SOURCES)]
    assert [page for page in pages if not (ROOT / page).is_file()] == []
