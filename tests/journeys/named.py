"""An agent that opens a task by our client and looks at its identities by the SPIFFE client of PyPI, in one process.

Prints {"svids": [[id, serial], …]} for every context that was pushed; a line on stdin ends the task.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from spiffe import WorkloadApiClient

from attestor.client.source import X509Source
from broker.client.broker import Broker
from broker.model.scope import Sensitivity
from broker.wire.tasks import EndTask, OpenTask, ScopeBody


def say(**facts: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def seen(context: Any) -> None:
    """What the foreign client was told."""
    say(svids=[[str(one.spiffe_id), f"{one.leaf.serial_number:x}"] for one in context.x509_svids])


async def main() -> None:
    """Until stdin ends."""
    address = os.environ["SPIFFE_ENDPOINT_SOCKET"]
    with WorkloadApiClient(address) as foreign:
        foreign.stream_x509_contexts(seen, lambda error: say(error=str(error)), retry_connect=False)
        async with (
            X509Source.open(address) as source,
            Broker.connect(source, os.environ["SOJOURN_BROKER"]) as broker,
        ):
            scope = ScopeBody(roles=["*"], sensitivity=Sensitivity.INTERNAL)
            opened = await broker.open_task(OpenTask(purpose="to be somebody", scope=scope))
            say(task=opened.task.id)
            await asyncio.to_thread(sys.stdin.readline)
            await broker.end(opened.task.id, EndTask())
            await asyncio.to_thread(sys.stdin.readline)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
