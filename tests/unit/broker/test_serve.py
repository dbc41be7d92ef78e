"""A whole broker on real sockets, with the identity our attestor gives it: who gets as far as its doors."""

from __future__ import annotations

import asyncio
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from broker.serve import RunningBroker, serve
from broker.settings import BrokerSettings, ConnectionLimits, ListenSettings
from ca.runtime.process import Readiness
from fakes import identity_side
from fakes.identity_side import CLOCK

NOBODY = 65534
ASK = """\
import http.client, os, socket, sys
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
connection = http.client.HTTPConnection("broker")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
connection.request("GET", "/v1/targets")
print(connection.getresponse().status)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder others may pass through."""
    path = Path(tempfile.mkdtemp(prefix="sj"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def running(folder: Path, readiness: Readiness | None = None, **changes: object) -> AsyncIterator[RunningBroker]:
    """A broker without targets."""
    async with asyncio.timeout(60), identity_side.both(folder) as (_, node_agent):
        settings = BrokerSettings(
            listen=ListenSettings(port=0),
            admin_socket=folder / "broker.sock",
            workload_api=identity_side.address(node_agent),
            database=f"sqlite:{folder / 'broker.db'}",
        ).model_copy(update=changes)
        async with serve(settings, CLOCK, readiness or Readiness()) as broker:
            yield broker


class Told(Readiness):
    """What whoever asks again and again would have heard."""

    def __init__(self) -> None:
        self.answers: list[bool] = []
        super().__init__()

    def changed(self) -> None:
        super().changed()
        self.answers.append(self.is_ready)


async def test_it_is_ready_when_its_doors_are_open_and_not_before(folder: Path) -> None:
    """Having an identity is not enough: whoever comes then is refused the connection."""
    readiness = Told()
    async with running(folder, readiness) as broker:
        _, writer = await asyncio.open_connection(*broker.address)
        writer.close()
    assert readiness.answers.count(True) == 1
    assert readiness.answers[-1]


async def asked_by_nobody(path: Path) -> str:
    """What a process of another user reads."""
    asking = (sys.executable, "-I", "-c", ASK, str(path), str(NOBODY))
    pipe, silence = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*asking, stdout=pipe, stderr=silence)
    out, _ = await process.communicate()
    return out.decode().strip()


async def test_another_user_the_settings_name_may_use_the_operators_socket(folder: Path) -> None:
    """With others named the kernel's word about their uid decides; with none the socket is its owner's."""
    async with running(folder, admin_uids=(NOBODY,)) as broker:
        assert await asked_by_nobody(broker.admin_socket) == "200"


async def test_a_user_nobody_named_does_not_get_to_the_operators_socket(folder: Path) -> None:
    """Not even as far as a refusal, when nobody is named; a refusal, when it is somebody else."""
    async with running(folder) as broker:
        assert stat.S_IMODE(broker.admin_socket.stat().st_mode) == 0o600
        assert not await asked_by_nobody(broker.admin_socket)


async def test_somebody_else_than_the_settings_name_is_refused(folder: Path) -> None:
    """The mode of the socket is not what protects it then."""
    async with running(folder, admin_uids=(NOBODY - 1,)) as broker:
        assert await asked_by_nobody(broker.admin_socket) == "403"


async def test_connections_over_the_limit_are_closed_before_a_handshake(folder: Path) -> None:
    """Strangers who say nothing take no more than their share of places."""
    async with running(folder, limits=ConnectionLimits(connections=4)) as broker:
        with ExitStack() as guests:
            for last in (False, False, True):
                guest = guests.enter_context(socket.socket())
                guest.setblocking(False)
                with suppress(ConnectionResetError):
                    await asyncio.get_running_loop().sock_connect(guest, broker.address)
                if last:
                    assert await asyncio.get_running_loop().sock_recv(guest, 1) == b""


async def test_commits_of_the_store_are_counted(folder: Path) -> None:
    """In the metrics the broker shows."""
    async with running(folder) as broker:
        assert broker.gate.metrics.value("sojourn_store_commits_total")
