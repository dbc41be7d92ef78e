"""Cgroups are found from wherever the node agent stands: also in a cgroup namespace of its own, as in a container."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from attestor.methods.workload.cgroup import parse
from attestor.methods.workload.container import locate
from attestor.node_agent.cgroups import open_cgroup
from fakes.caller import caller
from fakes.cgroups import VERSION_2, cgroup

POD = "/kubepods/burstable/pod2c48913c-b29f-11e7-9350-020968147796"
OWN = f"/kubepods/burstable/pod00000000-b29f-11e7-9350-020968147796/{'f' * 64}"
CONTAINER = f"{POD}/{'a' * 64}"
INSIDE = """
import json, os, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from attestor.methods.workload.cgroup import Cgroup, parse, sees_the_machine
from attestor.methods.workload.container import locate
from attestor.node_agent.cgroups import open_cgroup, reopen_cgroup, resolve, watch
text = Path("/proc/{pid}/cgroup").read_bytes()
located = locate(parse(text))
found = open_cgroup(located.container_cgroup)
answer = {{"text": text.decode(), "whole": sees_the_machine(), "found": found is not None}}
if found:
    name, folder = found
    answer |= {{"path": name.path, "inode": name.inode, "again": reopen_cgroup(name) is not None,
               "populated": watch(folder).is_populated()}}
answer["outside"] = resolve(Cgroup((), "/../../../../../x")) is None
print(json.dumps(answer))
"""


def inside(folder: Path, pid: int, *, see_all: bool) -> dict[str, Any]:
    """What a node agent in the cgroup OWN, in namespaces of its own, finds out about a process."""
    code = INSIDE.format(paths=[str(Path(__file__).resolve().parents[4])], pid=pid)
    (folder / "own").mkdir()
    hide = "" if see_all else f"umount -l {VERSION_2}\n"
    script = f"""
echo $$ > {VERSION_2}{OWN}/cgroup.procs
exec unshare --cgroup --mount sh -ec 'mount -t cgroup2 none {folder}/own
{hide}exec "$0" -c "$1"' {sys.executable} "$CODE"
"""
    ran = subprocess.run(["sh", "-ec", script], env={"CODE": code}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_from_a_namespace_of_its_own_it_is_the_same_cgroup(tmp_path: Path) -> None:
    """The kernel names it from where we stand; the path below the machine's mount and the inode are the same."""
    with caller(tmp_path) as one, cgroup(f"2:{CONTAINER}", one), cgroup(f"2:{OWN}"):
        located = locate(parse(Path(f"/proc/{one.pid}/cgroup").read_bytes()))
        assert located is not None
        here = open_cgroup(located.container_cgroup)
        found = inside(tmp_path, one.pid, see_all=True)
    assert here is not None
    assert "0::/../../pod2c48913c" in found["text"]
    assert not found["whole"]
    assert (found["path"], found["inode"]) == (CONTAINER, here[0].inode)
    assert (found["again"], found["populated"], found["outside"]) == (True, True, True)


def test_without_a_mount_of_the_machine_s_it_is_not_seen(tmp_path: Path) -> None:
    """Then the process is the instance."""
    with caller(tmp_path) as one, cgroup(f"2:{CONTAINER}", one), cgroup(f"2:{OWN}"):
        assert not inside(tmp_path, one.pid, see_all=False)["found"]
