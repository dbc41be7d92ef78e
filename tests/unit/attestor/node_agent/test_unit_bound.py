"""A unit as an instance, from the kernel to the server's word for it: a real server, node agent and cgroup."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from attestor.client.admin import AdminClient
from ca.runtime.secret import Secret
from fakes.caller import has_ended
from fakes.cgroups import cgroup, move
from fakes.identity_side import address, agent, server

UNIT = "/system.slice/agent.service"
RULES = """
rules:
  - name: agent
    nodes: ["node:name:web-1"]
    when: ["systemd:unit:agent.service", "unix:uid:0"]
    spiffe_id: /agent
    bind: unit
"""
FETCH_AND_RUN_AWAY = """
import asyncio, os, sys
from attestor.client.source import X509Source

async def main():
    async with X509Source.open(sys.argv[1]) as source:
        print(source.svid.instance, flush=True)

sys.stdin.readline()
asyncio.run(main())
sys.stdin.readline()
if child := os.fork():
    print(child, flush=True)
    os._exit(0)
os.setsid()
os.close(0)
os.close(1)
import signal
signal.pause()
"""


async def test_it_survives_its_processes_and_a_restart_and_ends_when_it_is_empty(tmp_path: Path) -> None:
    """A daemon that forks away stays the same instance; the last one's end revokes the leaf the first one got."""
    (tmp_path / "rules.yaml").write_text(RULES)
    async with server(tmp_path) as one, AdminClient(one.admin_socket) as admin:
        token = Secret((await one.issue_token("web-1")).reveal())
        with cgroup(f"2:{UNIT}") as place:
            async with agent(tmp_path, one.address[1], token, systemd=True) as chosen:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", FETCH_AND_RUN_AWAY, address(chosen), stdin=PIPE, stdout=PIPE
                )
                move(process.pid, place)
                instance = await told(process)
                child = int(await told(process))
                await process.wait()
                assert await state(admin, instance) == "live"
            async with agent(tmp_path, one.address[1], systemd=True):
                assert await state(admin, instance) == "live"
                os.kill(child, signal.SIGKILL)
                assert has_ended(child)
                async with asyncio.timeout(60):
                    while await state(admin, instance) != "ended":
                        await asyncio.get_running_loop().run_in_executor(None, os.sched_yield)
        revoked = await admin.post("/v1/revocations", {"instance": instance, "dry_run": True})
        assert revoked["leaf_count"] == 0  # nothing of it is left to be taken back


async def told(process: Process) -> str:
    """Its next line, after it was told to go on."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    await process.stdin.drain()
    async with asyncio.timeout(60):
        return (await process.stdout.readline()).decode().strip()


async def state(admin: AdminClient, instance: str) -> str:
    """What the server knows of it."""
    found = (await admin.get("/v1/instances"))["instances"]
    return next(str(one["state"]) for one in found if one["instance"] == instance)
