"""T37: a number that goes to another process between connect and look attests nobody.

In a pid namespace of its own the kernel is told which number comes next: the connecter dies, and its number goes to a
process of another user and program, with the old connection still open.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

INSIDE = """
import asyncio, json, os, socket, sys
sys.path[:0] = {paths!r}
from attestor.methods.workload.unix import UnixSource
from attestor.node_agent.attest import Attestor
from attestor.node_agent.peer import SO_PEERPIDFD, name_of, peer_of, reopen
from attestor.selector import texts
from ca.errors import Problem

def child(work):
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(tell)
        finally:
            os._exit(1)
    os.read(ready, 1)
    return pid

def connecter(tell):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    os.write(tell, b"c")
    import signal
    signal.pause()

def impostor(tell):
    os.setuid(int(sys.argv[2]))
    os.write(tell, b"i")
    import signal
    signal.pause()

async def attest(option):
    try:
        peer = peer_of(connection, option=option)
        found = await Attestor([source]).attest(peer)
    except Problem as problem:
        return {{"refused": problem.code}}
    return {{"strength": found.strength, "selectors": texts(found.selectors)}}

async def attest_held(peer):
    try:
        await Attestor([source]).attest(peer)
    except Problem as problem:
        return problem.code

path = sys.argv[1]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o666)
listener.listen()
source = UnixSource()
victim = child(connecter)
connection, _ = listener.accept()
held = peer_of(connection)
named = held.name
os.kill(victim, 9)
os.waitpid(victim, 0)
with open("/proc/sys/kernel/ns_last_pid", "w") as last:
    last.write(str(victim - 1))
again = child(impostor)
print(json.dumps({{
    "same": again == victim,
    "held": asyncio.run(attest_held(held)),
    "reopened": reopen(named),
    "certain": asyncio.run(attest(SO_PEERPIDFD)),
    "weak": asyncio.run(attest(9999)),
}}))
source.close()
os.kill(again, 9)
"""


def run_inside(folder: Path, user: int) -> dict[str, Any]:
    """What a node agent in a pid namespace finds out, when the number goes to a process of `user`."""
    folder.chmod(0o755)
    code = INSIDE.format(paths=[str(Path(__file__).resolve().parents[2])])
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    inside = [*namespace, sys.executable, "-c", code, str(folder / "s"), str(user)]
    ran = subprocess.run(inside, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    assert answer["same"]  # else nothing is shown
    return answer


@pytest.mark.parametrize("user", [0, 4321])
def test_who_has_the_number_now_is_not_who_connected(tmp_path: Path, user: int) -> None:
    """Neither for a new look at the connection, nor for one that was held, nor by the name in the journal."""
    found = run_inside(tmp_path, user)
    assert found["certain"] == {"refused": "caller-gone"}
    assert found["held"] == "caller-gone"
    assert found["reopened"] is None


def test_without_peer_pidfd_another_user_is_seen_and_the_same_is_the_weakest(tmp_path: Path) -> None:
    """What a kernel before 6.5 leaves open is said by the strength, and a rule can ask for more."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run_inside(tmp_path / "a", 4321)["weak"] == {"refused": "caller-gone"}
    assert run_inside(tmp_path / "b", 0)["weak"]["strength"] == "weak-peer"
