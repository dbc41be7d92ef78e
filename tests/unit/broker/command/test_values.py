"""sojourn secret put · versions · destroy: from a file or a pipe, never from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from broker.engines.protocol import Lent
from broker.engines.static import Static
from broker.store.sealed import Sealed
from ca.runtime.secret import Secret
from fakes.commands import invoke
from fakes.lent_account import SEAL

MARK = "hunter2-hunter2-hunter2"


def with_shelf(place: Any) -> Sealed:
    """A target of kind `static`, and a broker that has a sealing key."""
    house, gate = place.doors.house, place.doors.gate
    house.world.engines["shelf"] = Static(Lent(clock=house.clock))
    object.__setattr__(gate, "world", replace(gate.world, seal=SEAL))
    return Sealed(house.world.database, SEAL, house.clock)


async def run(place: Any, *arguments: object, code: int = 0) -> Any:
    """One command."""
    result = await invoke("secret", *arguments, environment=place.environment)
    assert result.exit_code == code, result.output
    assert MARK not in result.output
    return result


async def test_a_value_goes_its_way(place: Any, tmp_path: Path) -> None:
    """Put twice, listed, the first destroyed; the line break of an editor is not part of it."""
    vault = with_shelf(place)
    for text in ("one\n", MARK + "\n"):
        (tmp_path / "value").write_text(text)
        await run(place, "put", "shelf/key", "--file", tmp_path / "value")
    assert await vault.read("value/shelf/key") == Secret(MARK)
    assert "version 1" in (await run(place, "destroy", "shelf/key", "--version", 1)).stdout
    told = json.loads((await run(place, "versions", "shelf/key", "--json")).stdout)
    assert [(one["version"], one["destroyed_at"] is None) for one in told["versions"]] == [(2, True), (1, False)]
    shown = (await run(place, "versions", "shelf/key")).stdout
    assert "destroyed" in shown
    assert SEAL.key_name in shown
    await run(place, "put", "shelf/key", "--file", tmp_path / "value", "--keep-newline")
    assert await vault.read("value/shelf/key") == Secret(MARK + "\n")


async def test_a_pipe_is_read_and_leaves_no_trace_in_the_arguments(place: Any) -> None:
    """Another process sees the command line; there is nothing on it."""
    vault = with_shelf(place)
    command = [sys.executable, "-m", "broker", "secret", "put", "shelf/key"]
    import asyncio
    import os

    done = await asyncio.to_thread(
        subprocess.run, command, input=MARK.encode(), capture_output=True, env={**os.environ, **place.environment}
    )
    assert done.returncode == 0, done.stderr
    assert await vault.read("value/shelf/key") == Secret(MARK)
    assert MARK not in " ".join(command)


async def test_what_can_t_be_is_refused(place: Any, tmp_path: Path) -> None:
    """With the exit code of its kind, and without the value."""
    with_shelf(place)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "good").write_text(MARK)
    for name, code in (("bytes", 1), ("empty", 1), ("nowhere", 1)):
        await run(place, "put", "shelf/key", "--file", tmp_path / name, code=code)
    for wrong in ("shelf", "/key", "shelf/", "a/b/c"):
        await run(place, "put", wrong, "--file", tmp_path / "good", code=2)
    await run(place, "put", "orders-db/key", "--file", tmp_path / "good", code=1)
    await run(place, "versions", "shelf/key", code=1)
    await run(place, "destroy", "shelf/key", "--version", 0, code=2)
