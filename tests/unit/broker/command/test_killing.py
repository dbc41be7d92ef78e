"""sojourn task kill: what would end is shown, and asked about before more than one task ends."""

from __future__ import annotations

import json
from typing import Any

from fakes.commands import invoke

ROLE = "orders-db/readonly"


async def opened(place: Any) -> str:
    """A task of five minutes."""
    said = ("--purpose", "fix invoices", "--lasts", "5m", "--role", ROLE, "--json")
    result = await invoke("task", "open", *said, environment=place.environment)
    assert result.exit_code == 0, result.stderr
    return str(json.loads(result.stdout)["task"])


async def live(place: Any) -> set[str]:
    """Which tasks live."""
    listed = await invoke("task", "list", "--json", environment=place.environment)
    return {one["id"] for one in json.loads(listed.stdout)}


async def test_a_path_is_shown_asked_about_and_ended(place: Any) -> None:
    """Three commands: look, be refused without a word, say --yes."""
    names = {await opened(place) for _ in range(3)}
    reach = ("task", "kill", "--path", "spiffe://example.org/agent")
    shown = await invoke(*reach, "--dry-run", "--json", environment=place.environment)
    assert {one["id"] for one in json.loads(shown.stdout)["listed"]} == names
    human = await invoke(*reach, "--dry-run", environment=place.environment)
    assert "fix invoices" in human.stdout
    refused = await invoke(*reach, environment=place.environment)
    assert refused.exit_code == 2
    assert "--dry-run" in refused.stderr
    assert await live(place) == names
    told = await invoke(*reach, "--yes", "--wait", environment=place.environment)
    assert (told.exit_code, told.stdout.strip()) == (0, "3 tasks ended")
    assert await live(place) == set()


async def test_exactly_one_thing_is_named(place: Any) -> None:
    """None, or two, is a sentence."""
    for said in ((), ("--agent", "spiffe://example.org/agent", "--trust-domain", "example.org")):
        result = await invoke("task", "kill", *said, "--yes", environment=place.environment)
        assert result.exit_code in {1, 2}
        assert "exactly one" in result.stderr
