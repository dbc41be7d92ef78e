"""An agent in a process of its own, led line by line through its stdin; prints a line of JSON for each thing it did.

    open [JSON]    opens a task bound to this process, with what else is said of it     {"task": …}
    obtain ROLE    asks for a secret of ROLE and acknowledges it     {"lease": …}, with its fields and secrets
    state          what the broker says of the task          {"state": …}
    end            ends it                                   {"state": …}

Unasked it says {"svid": …, "instance": …} whenever the Workload API told it something.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from attestor.client.beside import beside
from attestor.client.source import X509Source
from broker.client.asking import asking
from broker.client.broker import Broker
from broker.model.scope import Sensitivity
from broker.wire.credentials import AskCredential
from broker.wire.tasks import EndTask, OpenTask, ScopeBody
from ca.errors import Problem


def say(**facts: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def tell(source: X509Source) -> None:
    """Each word of the Workload API."""
    async for _ in source.changed():
        say(svid=str(source.svid.id), instance=source.svid.instance, serial=str(source.svid.chain[0].serial_number))


class Agent:
    """What it can be told to do."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._task = ""

    async def do(self, word: str, what: str) -> None:
        """One line of stdin."""
        match word:
            case "open":
                scope = ScopeBody(roles=["*"], sensitivity=Sensitivity.INTERNAL)
                more = json.loads(what or "{}")
                opened = await self._broker.open_task(asking(OpenTask, purpose="a journey", scope=scope, **more))
                self._task = opened.task.id
                say(task=self._task)
            case "obtain":
                told = await self._broker.ask(self._task, AskCredential(role=what))
                await self._broker.ack(told.lease.id)
                secret = {name: value.reveal() for name, value in told.secret.items()}
                say(lease=told.lease.id, **told.fields, **secret)
            case "state":
                say(state=(await self._broker.task(self._task)).state)
            case "end":
                say(state=(await self._broker.end(self._task, EndTask())).state)


async def main() -> None:
    """Until stdin ends."""
    async with (
        X509Source.open(os.environ["SPIFFE_ENDPOINT_SOCKET"]) as source,
        Broker.connect(source, os.environ["SOJOURN_BROKER"]) as broker,
        beside(tell(source)),
    ):
        agent = Agent(broker)
        while line := await asyncio.to_thread(sys.stdin.readline):
            word, _, what = line.strip().partition(" ")
            try:
                await agent.do(word, what)
            except Problem as problem:
                say(refused=problem.code, says=str(problem))


if __name__ == "__main__":
    asyncio.run(main())
