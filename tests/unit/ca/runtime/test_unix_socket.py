"""Sockets in the file system: private from the first moment, never taken from a living process."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import aiohttp
import pytest

from ca.errors import Malformed
from ca.runtime.unix_socket import AlreadyRunning, credentials, listening
from ca.runtime.web import Call, Route, application, listen, listen_unix, peer_uid
from fakes.web_service import WebService


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
def test_the_mode_is_what_was_asked_for(tmp_path: Path, umask: int, mode: int) -> None:
    """Whatever the umask is, and it is left as it was."""
    before = os.umask(umask)
    try:
        with listening(tmp_path / "s", mode=mode):
            found = (tmp_path / "s").stat().st_mode
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_ISSOCK(found)
    assert stat.S_IMODE(found) == mode
    assert not (tmp_path / "s").exists()


def test_linux_takes_the_mode_from_the_descriptor(tmp_path: Path) -> None:
    """So there is no moment in which a socket is open to more: between bind and chmod it would be."""
    before = os.umask(0)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            os.fchmod(bound.fileno(), 0o600)
            bound.bind(str(tmp_path / "s"))
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_living_socket_is_not_taken(tmp_path: Path) -> None:
    """By another start of ours, nor from a foreign process that knows no lock."""
    path = tmp_path / "s"
    with listening(path), pytest.raises(AlreadyRunning, match=f"already running.*{path}"), listening(path):
        pass
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen()
        with pytest.raises(AlreadyRunning, match="something answers"), listening(path):
            pass
    assert path.exists()


def test_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    """What a killed process leaves behind."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/nowhere")])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, make: object) -> None:
    """A file, a folder, a link: somebody meant something else."""
    path = tmp_path / "s"
    make(path)  # type: ignore[operator]
    with pytest.raises(Malformed, match="something else is there"), listening(path):
        pass
    assert path.is_symlink() or path.exists()


@pytest.mark.parametrize("path", ["gone/s", "x" * 120])
def test_an_impossible_path_is_said(tmp_path: Path, path: str) -> None:
    """No folder, or longer than a socket's address may be."""
    with pytest.raises(Malformed, match="can't listen at"), listening(tmp_path / path):
        pass


def test_a_socket_somebody_put_there_meanwhile_stays(tmp_path: Path) -> None:
    """Only our own is removed at the end."""
    path = tmp_path / "s"
    with listening(path):
        path.unlink()
        path.touch()
    assert path.exists()


def test_credentials_are_those_of_the_connecter(tmp_path: Path) -> None:
    """By the kernel's word."""
    with listening(tmp_path / "s") as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        accepted, _ = listener.accept()
        with accepted:
            found = credentials(accepted)
    assert (found.pid, found.uid, found.gid) == (os.getpid(), os.getuid(), os.getgid())


async def _whoami(call: Call) -> dict[str, object]:
    return {"uid": peer_uid(call.request)}


WHOAMI = Route("GET", "/whoami", _whoami, summary="Who am I")


async def test_only_the_uids_that_are_allowed_are_answered(tmp_path: Path) -> None:
    """Others learn nothing but that; the socket is for its owner alone."""
    path = tmp_path / "s"
    connector = aiohttp.UnixConnector
    async with asyncio.timeout(60):
        async with listen_unix(application([WHOAMI]), path, allow_uids={os.getuid()}):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            async with aiohttp.ClientSession("http://x", connector=connector(str(path))) as session:
                async with session.get("/whoami") as answer:
                    assert await answer.json() == {"uid": os.getuid()}
                with pytest.raises(AlreadyRunning):
                    async with listen_unix(application([]), path, allow_uids=()):
                        pass
        service = WebService()
        app = application([WHOAMI], identify=service.identify)
        async with (
            listen_unix(app, path, allow_uids={os.getuid() + 1}),
            aiohttp.ClientSession("http://x", connector=connector(str(path))) as session,
            session.get("/whoami") as answer,
        ):
            assert answer.status == 403
        assert service.asked == 0
    assert not path.exists()


async def test_over_tcp_nobody_has_a_uid() -> None:
    """A route that asks for it there is answered with 401."""
    async with (
        asyncio.timeout(60),
        listen(application([WHOAMI]), host="127.0.0.1", port=0) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as session,
        session.get("/whoami") as answer,
    ):
        assert answer.status == 401
