"""T9: nobody is in another's pod or unit by what it mounts, makes or names.

Real processes, real cgroups and mounts; the kubelet knows the victim's pod and the attacker's.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from attestor.methods.workload.k8s import KubernetesSource
from attestor.methods.workload.kubelet import Kubelet, fetcher
from attestor.methods.workload.systemd import SystemdSource
from attestor.node_agent.attest import Attestor
from attestor.node_agent.peer import Findings, peer_of
from attestor.selector import texts
from fakes.caller import Caller, caller
from fakes.cgroups import VERSION_2, cgroup
from fakes.clock import ManualClock
from fakes.kubelet import kubelet

VICTIM, ATTACKER = "11111111-b29f-11e7-9350-020968147796", "22222222-b29f-11e7-9350-020968147796"
VICTIMS, ATTACKERS = "a" * 64, "b" * 64
VICTIM_PATH = f"/kubepods/burstable/pod{VICTIM}/{VICTIMS}"
ATTACKER_PATH = f"/kubepods/burstable/pod{ATTACKER}/{ATTACKERS}"
USER = 4321


@asynccontextmanager
async def looking(folder: Path) -> AsyncIterator[Attestor]:
    """A node agent that looks at pods and units."""
    clock = ManualClock()
    async with kubelet(folder) as fake, fetcher(fake.settings()) as entered:
        fake.add_pod("shop", "victim", {"main": VICTIMS}, uid=VICTIM)
        fake.add_pod("evil", "attacker", {"main": ATTACKERS}, uid=ATTACKER)
        source = KubernetesSource(Kubelet(fake.settings(), entered, clock), clock)
        yield Attestor([source, SystemdSource()])


async def attest(attestor: Attestor, one: Caller) -> Findings:
    """What is found out about it."""
    peer = peer_of(one.connection)
    try:
        return await attestor.attest(peer)
    finally:
        peer.close()


def pod(found: Findings) -> list[str]:
    """Which pod it is."""
    return [text.removeprefix("k8s:pod-name:") for text in texts(found.selectors) if text.startswith("k8s:pod-name:")]


@contextlib.contextmanager
def delegated(path: str) -> Iterator[None]:
    """What systemd gives a user: cgroups it may make, and move its own processes between."""
    with cgroup(f"2:{path}") as place:
        for each in (place, *(place / name for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads"))):
            os.chown(each, USER, USER)
        yield


async def test_another_pod_s_cgroup_mounted_over_its_own(tmp_path: Path) -> None:
    """`mountinfo` then names the victim's pod, and the files at its own cgroup are the victim's; the kernel knows."""
    spoof = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
os.read(0, 1)
assert libc.unshare(0x00020000) == 0
assert libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) == 0
for mine in ({str(VERSION_2 / ATTACKER_PATH[1:])!r}, {str(VERSION_2)!r}):
    assert libc.mount({str(VERSION_2 / VICTIM_PATH[1:])!r}.encode(), mine.encode(), None, 4096, None) == 0, mine
os.write(1, b"m")
os.read(0, 1)
"""
    async with looking(tmp_path) as attestor:
        with cgroup(f"2:{VICTIM_PATH}"), caller(tmp_path, then=spoof) as one, cgroup(f"2:{ATTACKER_PATH}", one):
            one.tell()
            one.hear()
            mounts = Path(f"/proc/{one.pid}/mountinfo").read_text()
            assert VICTIM_PATH in mounts  # whoever believes it is fooled
            found = await attest(attestor, one)
            assert pod(found) == ["attacker"]
            one.kill()


async def test_a_cgroup_of_a_user_called_after_a_pod_is_no_pod(tmp_path: Path) -> None:
    """A user makes it below its own, and moves itself there: real rights, real kernel."""
    own = f"/user.slice/user-{USER}.slice/user@{USER}.service"
    place = VERSION_2 / own[1:]
    make = f"""
os.read(0, 1)
for below in ({VICTIM_PATH!r}, "/system.slice/victim.service"):
    os.makedirs({str(place)!r} + below)
    open({str(place)!r} + below + "/cgroup.procs", "w").write(str(os.getpid()))
    os.write(1, b"m")
    os.read(0, 1)
"""
    async with looking(tmp_path) as attestor:
        with delegated(own), cgroup(f"2:{own}/init.scope") as inner, caller(tmp_path, then=make, user=USER) as one:
            (inner / "cgroup.procs").write_text(str(one.pid))
            os.chown(inner / "cgroup.procs", USER, USER)
            one.tell()
            one.hear()
            assert VICTIM_PATH in Path(f"/proc/{one.pid}/cgroup").read_text()
            assert pod(await attest(attestor, one)) == []
            one.tell()
            one.hear()
            assert f"{own}/system.slice/victim.service" in Path(f"/proc/{one.pid}/cgroup").read_text()
            said = texts((await attest(attestor, one)).selectors)
            assert "systemd:unit:victim.service" not in said
            assert f"systemd:user-unit:{USER}:victim.service" in said
            one.kill()


async def test_a_cgroup_namespace_of_its_own_hides_nothing(tmp_path: Path) -> None:
    """It believes to be at the root; we see where it is."""
    unshare = "import ctypes\nassert ctypes.CDLL(None).unshare(0x02000000) == 0\n"
    hide = f"os.read(0, 1)\n{unshare}os.write(1, b'n')\nos.read(0, 1)"
    async with looking(tmp_path) as attestor:
        with caller(tmp_path, then=hide) as one, cgroup(f"2:{ATTACKER_PATH}", one):
            one.tell()
            one.hear()
            inside = subprocess.run(
                ["nsenter", "-t", str(one.pid), "-C", "cat", f"/proc/{one.pid}/cgroup"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert "0::/\n" in inside.stdout
            assert pod(await attest(attestor, one)) == ["attacker"]
