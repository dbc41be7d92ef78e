"""Who is on the socket: real processes, real sockets."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from attestor.methods.workload.proc import CallerGone
from attestor.node_agent.peer import boot_id, exited, name_of, peer_of, reopen
from fakes.caller import caller

UNKNOWN_OPTION = 9999
"""A socket option no kernel has: what SO_PEERPIDFD is to an old one."""


def test_a_peer_is_who_called_connect(tmp_path: Path) -> None:
    """Number, user, group and boot are those of the connecter, and it is held by a descriptor of its own."""
    with caller(tmp_path) as one:
        peer = peer_of(one.connection)
        assert (peer.pid, peer.uid, peer.gid) == (one.pid, os.geteuid(), os.getegid())
        assert peer.name.boot_id == boot_id()
        assert peer.certain
        assert peer.is_alive()
        peer.close()


def test_a_killed_peer_is_not_alive_even_unreaped(tmp_path: Path) -> None:
    """A zombie still has its number; it is dead for us all the same."""
    with caller(tmp_path) as one:
        peer = peer_of(one.connection)
        os.kill(one.pid, 9)
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
        assert not peer.is_alive()
        with pytest.raises(CallerGone, match=f"process {one.pid} .* has ended"):
            peer.check()
        peer.close()


@pytest.mark.parametrize("reap", [False, True])
def test_a_connection_of_a_dead_process_is_refused(tmp_path: Path, *, reap: bool) -> None:
    """Who died between connect and our look is gone, whether or not its parent has noticed."""
    with caller(tmp_path) as one:
        os.kill(one.pid, 9)
        os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
        if reap:
            one.process.wait(60)
        with pytest.raises(CallerGone):
            peer_of(one.connection)


def test_without_peer_pidfd_a_peer_is_uncertain(tmp_path: Path) -> None:
    """Traps 37: on an old kernel the number may have been used again before we looked."""
    with caller(tmp_path) as one:
        peer = peer_of(one.connection, option=UNKNOWN_OPTION)
        assert not peer.certain
        assert peer.is_alive()
        one.kill()
        assert not peer.is_alive()
        peer.close()
        with pytest.raises(CallerGone):
            peer_of(one.connection, option=UNKNOWN_OPTION)


def test_no_descriptor_is_left_behind(tmp_path: Path) -> None:
    """A refused peer costs nothing."""
    with caller(tmp_path) as one:
        one.kill()
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            with pytest.raises(CallerGone):
                peer_of(one.connection)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_process_is_found_again_by_its_name(tmp_path: Path) -> None:
    """After a restart the journal's name leads to the same process, and to nobody once it is gone."""
    with caller(tmp_path) as one:
        peer = peer_of(one.connection)
        pidfd = reopen(peer.name)
        assert pidfd is not None
        assert not exited(pidfd)
        os.close(pidfd)
        one.kill()
        assert reopen(peer.name) is None
        peer.close()


@pytest.mark.parametrize(
    "wrong",
    [{"start_time": 1}, {"boot_id": "0f0f"}, {"inode": 1}, {"pid": os.getppid()}],
    ids=lambda one: next(iter(one)),
)
def test_a_used_again_number_is_somebody_else(wrong: dict[str, int | str]) -> None:
    """Each part of a process's name counts."""
    pidfd = os.pidfd_open(os.getpid())
    name = name_of(os.getpid(), pidfd)
    os.close(pidfd)
    other = type(name)(**{part: getattr(name, part) for part in ("pid", "start_time", "boot_id", "inode")} | wrong)
    assert reopen(other) is None


def test_the_pidfd_is_not_inherited(tmp_path: Path) -> None:
    """A child of the node agent must not hold processes of others."""
    with caller(tmp_path) as one:
        peer = peer_of(one.connection)
        assert not os.get_inheritable(peer.pidfd)
        peer.close()


def test_python_runs_the_callers(tmp_path: Path) -> None:
    """What other tests say about the executable is about this one."""
    with caller(tmp_path) as one:
        assert Path(f"/proc/{one.pid}/exe").samefile(sys.executable)
