"""T37: a number that goes to another process while a gateway of the SPIFFE Broker API holds a stream for it.

In a pid namespace of its own the kernel is told which number comes next: the workload dies, and its number goes to
another process before the node agent hears of the death.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

INSIDE = """
import asyncio, json, os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from grpclib.exceptions import GRPCError
from attestor.wire.spiffe_broker import ProcessReference, TaskReference
from ca.spiffe.x509svid import X509Svid
from fakes.broker_api import X509, broker_api, heard, reason
from fakes.issuer import identity

def child():
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tell, b"c")
        signal.pause()
    os.read(ready, 1)
    return pid

async def instance(stream):
    svid = (await heard(stream)).svids[0]
    return X509Svid.parse(svid.x509_svid, svid.x509_svid_key).instance

async def how_it_ends(call):
    try:
        async with asyncio.timeout(60):
            await call
    except GRPCError as error:
        return reason(error)

async def task_of(broker):
    async with broker.call(X509, TaskReference("t1")) as stream:
        await heard(stream)

async def main():
    async with broker_api(Path(sys.argv[1])) as broker:
        own, victim = broker.authority, child()
        given = {{victim: (identity(own.id("/a")), identity(own.id("/task/t1")))}}
        broker.agent.issuer.given = lambda _: given.get(victim, (identity(own.id("/a")),))
        async with broker.call(X509, ProcessReference(victim)) as stream:
            before = await instance(stream)
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(victim - 1))
            again = child()
            same = again == victim
            given.clear()
            broker.agent.issuer.rules_version = "2"
            ended = await how_it_ends(heard(stream))
        task = await how_it_ends(task_of(broker))
        async with broker.call(X509, ProcessReference(victim)) as stream:
            after = await instance(stream)
        print(json.dumps({{"same": same, "ended": ended, "task": task, "another": before != after}}))
        os.kill(again, signal.SIGKILL)

asyncio.run(main())
"""


def test_the_stream_ends_and_the_newcomer_is_another_instance(tmp_path: Path) -> None:
    """Nothing of the dead is given to who has its number, and nothing of the newcomer goes down the old stream."""
    root = Path(__file__).resolve().parents[2]
    code = INSIDE.format(paths=[str(root), str(root / "tests")])
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    ran = subprocess.run(
        [*namespace, sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "same": True,
        "ended": "WORKLOAD_NOT_FOUND",
        "task": "WORKLOAD_NOT_FOUND",
        "another": True,
    }
