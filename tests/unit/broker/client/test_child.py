"""A child gets its secrets and nothing of ours, and ends with everything it started."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from broker.client.child import Delivery, Gift, start
from ca.errors import Malformed, NotFound
from ca.runtime.secret import Secret
from fakes.caller import has_ended

PYTHON = sys.executable


def gift(variable: str, delivery: Delivery, value: str = "tulip") -> Gift:
    """A gift holding `value`."""
    return Gift(variable=variable, value=Secret(value), delivery=delivery)


@pytest.mark.parametrize(
    ("delivery", "reading"),
    [
        (Delivery.VARIABLE, "os.environ['X']"),
        (Delivery.FILE, "open(os.environ['X']).read()"),
        (Delivery.DESCRIPTOR, "os.fdopen(int(os.environ['X'])).read()"),
    ],
)
async def test_the_value_arrives(delivery: Delivery, reading: str) -> None:
    """Each way of delivery gives the child exactly the value."""
    child = start([PYTHON, "-c", f"import os, sys; sys.exit({reading} != 'tulip')"], [gift("X", delivery)])
    assert await child.wait() == 0
    await child.end()


async def test_a_signal_from_before_its_end_was_heard_is_not_for_who_waited() -> None:
    """A key of a terminal reaches both; the child has answered it when whoever waits takes the signals over."""
    loop, child, later = asyncio.get_running_loop(), start([PYTHON, "-c", ""], []), asyncio.Event()
    heard: list[str] = []
    assert has_ended(child.process.pid)  # and the loop, which stood still, has not heard of it
    loop.call_soon(os.kill, os.getpid(), signal.SIGINT)  # after it has looked who is ready
    assert await child.wait() == 0
    loop.add_signal_handler(signal.SIGINT, heard.append, "for who waited")
    loop.add_signal_handler(signal.SIGTERM, later.set)
    os.kill(os.getpid(), signal.SIGTERM)  # they are heard in the order in which they came
    await later.wait()
    assert heard == []
    await child.end()


async def test_nothing_of_ours_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that lead to our sockets stay behind."""
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///x")
    monkeypatch.setenv("SOJOURN_BROKER", "https://127.0.0.1:1")
    code = "import os, sys; sys.exit(any(n.startswith(('SOJOURN', 'SPIFFE')) for n in os.environ))"
    child = start([PYTHON, "-c", code], [])
    assert await child.wait() == 0
    await child.end()


async def test_a_private_file_is_gone_afterwards() -> None:
    """The file is 0600 while the child runs and is removed with it."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    code = "import os; p = os.environ['X']; assert os.stat(p).st_mode & 0o777 == 0o600; print(p)"
    child = start([PYTHON, "-c", code], [gift("X", Delivery.FILE)])
    os.close(reading)
    os.close(writing)
    assert await child.wait() == 0
    assert child.files is not None
    folder = child.files.path
    assert folder.exists()
    await child.end()
    assert not folder.exists()


async def test_a_daemonised_grandchild_ends_too() -> None:
    """A grandchild that left the session does not survive `end`."""
    code = (
        "import os, sys, time\n"
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    pid = os.fork()\n"
        "    if pid: os.write(w, str(pid).encode()); os._exit(0)\n"
        "    signal = __import__('signal'); signal.pause()\n"
        "pid = os.read(r, 20).decode()\n"
        "open(os.environ['OUT'], 'w').write(pid)\n"
    )
    import tempfile

    with tempfile.NamedTemporaryFile() as out:
        child = start([PYTHON, "-c", code], [gift("OUT", Delivery.VARIABLE, out.name)])
        assert await child.wait() == 0
        grandchild = int(Path(out.name).read_text())
        os.kill(grandchild, 0)
        await child.end()
        with pytest.raises(ProcessLookupError):
            os.kill(grandchild, 0)


async def test_a_signals_number_is_told_as_a_shell_does() -> None:
    """128 plus the number."""
    child = start([PYTHON, "-c", "import signal; signal.pause()"], [])
    child.process.send_signal(signal.SIGTERM)
    assert await child.wait() == 128 + signal.SIGTERM
    await child.end()


async def test_an_absent_program_is_told() -> None:
    """The sentence names the program."""
    with pytest.raises(NotFound, match="no-such-program"):
        start(["/no-such-program"], [gift("X", Delivery.FILE)])


async def test_two_gifts_for_one_variable_are_refused() -> None:
    """Neither silently wins."""
    with pytest.raises(Malformed):
        start(["true"], [gift("X", Delivery.FILE), gift("X", Delivery.VARIABLE)])


async def test_only_what_descends_from_it_is_ended() -> None:
    """Without a cgroup orphans are ended one by one; a process we had before is no orphan of the child's."""
    before = await asyncio.create_subprocess_exec("sleep", "60")
    child = start(
        [PYTHON, "-c", "import os, signal\nif os.fork() == 0: os.setsid(); signal.pause()"], [], own_cgroup=False
    )
    assert await child.wait() == 0
    await child.end()
    assert before.returncode is None
    os.kill(before.pid, 0)
    before.kill()
    assert await before.wait() == -signal.SIGKILL
