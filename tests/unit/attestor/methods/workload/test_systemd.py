"""A unit is what the machine's own manager calls it, never what a user's does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestor.methods.workload.cgroup import Cgroup, parse, sees_the_machine
from attestor.methods.workload.proc import ProcessFolder
from attestor.methods.workload.protocol import CantSay, Subject
from attestor.methods.workload.systemd import SystemdSource, unit_of
from attestor.selector import texts
from fakes.caller import Caller, caller
from fakes.cgroups import VERSION_2, cgroup

USER = "/user.slice/user-1000.slice/user@1000.service"


async def said(one: Caller, source: SystemdSource | None = None) -> list[str]:
    """What the source says of a process."""
    descriptor = os.open(f"/proc/{one.pid}", os.O_RDONLY)
    folder = ProcessFolder(descriptor)
    try:
        subject = Subject(pid=one.pid, uid=0, gid=0, start_time=folder.start_time(), folder=folder)
        return texts(await (source or SystemdSource()).selectors(subject))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def caller_in(folder: Path, *paths: str) -> Iterator[Caller]:
    """A process in real cgroups: `2:` before a path of version 2, `1:` before one of systemd's own hierarchy."""
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(caller(folder))
        for path in paths:
            stack.enter_context(cgroup(path, one))
        yield one


@pytest.mark.parametrize("version", ["1", "2"])
async def test_a_service_is_named_with_its_slices(tmp_path: Path, version: str) -> None:
    """In either version; what it made below itself is its own affair."""
    with caller_in(tmp_path, f"{version}:/system.slice/system-agent.slice/agent@1.service/deeper/other.service") as one:
        assert await said(one) == [
            "systemd:slice:system-agent.slice",
            "systemd:slice:system.slice",
            "systemd:unit:agent@1.service",
        ]


async def test_a_unit_of_a_user_s_manager_is_no_unit_of_the_machine(tmp_path: Path) -> None:
    """Whatever it calls its slices and units, and with the user in the value."""
    with caller_in(tmp_path, f"2:{USER}/system.slice/agent.service") as one:
        assert await said(one) == [
            "systemd:slice:user-1000.slice",
            "systemd:slice:user.slice",
            "systemd:user-unit:1000:agent.service",
        ]


async def test_outside_of_every_slice_there_is_nothing_to_say(tmp_path: Path) -> None:
    """The root, and names that are no slices."""
    with caller(tmp_path) as one:
        assert await said(one) == []
    with caller_in(tmp_path, "2:/agent.service") as one:
        assert await said(one) == []


async def test_versions_that_name_different_units_are_refused(tmp_path: Path) -> None:
    """Neither is believed."""
    with (
        caller_in(tmp_path, "1:/system.slice/a.service", "2:/system.slice/b.service") as one,
        pytest.raises(CantSay, match="more than one unit"),
    ):
        await said(one)


async def test_a_node_agent_that_does_not_see_the_machine_says_nothing(tmp_path: Path) -> None:
    """In a cgroup namespace of its own `/system.slice` may be the inside of anybody's container."""
    with caller(tmp_path) as one, pytest.raises(CantSay, match="namespace of its own"):
        await said(one, SystemdSource(whole=lambda: False))
    assert sees_the_machine()


@pytest.mark.parametrize(
    ("path", "unit", "user", "watched"),
    [
        ("/system.slice/a.service", "a.service", None, "/system.slice/a.service"),
        (r"/system.slice/dev\x2dx.mount/y", r"dev\x2dx.mount", None, r"/system.slice/dev\x2dx.mount"),
        ("/system.slice/_cpu.service", "cpu.service", None, "/system.slice/_cpu.service"),
        (f"{USER}/app.slice/b.service", "b.service", 1000, f"{USER}/app.slice/b.service"),
        (f"{USER}/init.scope", "init.scope", 1000, f"{USER}/init.scope"),
        ("/user.slice/user-1000.slice/session-3.scope", "", None, "/user.slice/user-1000.slice"),
        ("/system.slice", "", None, "/system.slice"),
        ("/system.slice/no unit", "", None, "/system.slice"),
        ("/system.slice/other.slice/a.service", "", None, "/system.slice"),
        ("/custom.slice/a.service", "", None, "/custom.slice"),
        ("/system.slice/docker-0f.scope/system.slice/a.service", "docker-0f.scope", None, None),
    ],
)
def test_paths_and_what_they_say(path: str, unit: str, user: int | None, watched: str | None) -> None:
    """Escapes stay, but for the one of systemd's own; a slice must lie within the one it lies in."""
    found = unit_of(parse(f"0::{path}\n".encode()))
    assert found is not None
    assert (found.name, found.user) == (unit, user)
    assert watched is None or found.cgroup == Cgroup((), watched)


@pytest.mark.parametrize("path", ["/", "/../system.slice/a.service", "/init.scope", "/kubepods/pod1/2"])
def test_paths_that_say_nothing(path: str) -> None:
    """Not below a slice as the host sees it."""
    assert unit_of(parse(f"0::{path}\n".encode())) is None


def test_a_name_can_not_end_a_line() -> None:
    """Python knows nine line ends, the kernel forbids one of them in a name."""
    text = f"0::{USER}/x\x0b0::/system.slice/agent.service\n".encode()
    assert unit_of(parse(text)) == unit_of(parse(text.replace(b"\x0b", b"-")))
    found = unit_of(parse(text))
    assert found is not None
    assert found.user == 1000
    assert VERSION_2.is_dir()
