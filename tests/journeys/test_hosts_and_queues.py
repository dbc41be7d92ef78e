"""A task's end over a real `up`, on a host with a real sshd and in a real RabbitMQ: each as its guarantee says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from broker.model.report import Fate
from ca.runtime.clock import SystemClock
from journeys.leading import agent, told
from journeys.processes import PATIENCE
from journeys.up import RunningUp, up
from servers.amqp import Guest
from servers.rabbitmq import Room, rabbitmq
from servers.sshd import Server, Session, sshd

CLOCK = SystemClock()
HOSTS = """\
engine:
  kind: ssh
  host: {server.host}
  port: {server.port}
  host_keys: ["{server.host_key}"]
  revocations: [{server.revocations}]
roles:
  echo:
    sensitivity: internal
    ttl: 5m
    engine: {{principals: [{server.user}], force_command: cat}}
"""
UNLISTED = """\
engine: {{kind: ssh, host: {server.host}, port: {server.port}}}
roles:
  echo:
    sensitivity: internal
    ttl: 20s
    engine: {{principals: [{server.user}]}}
"""
QUEUES = """\
engine:
  kind: rabbitmq
  management: {room.server.url}
  user: {room.admin}
  password: env:QUEUES_PASSWORD
  host: {room.server.host}
  port: {room.server.port}
roles:
  consumer:
    sensitivity: internal
    engine:
      permissions: [{{vhost: {room.vhost}, configure: "orders", read: "orders"}}]
"""


@dataclass(kw_only=True)
class House:
    """`up`, and the two places it lets agents into."""

    up: RunningUp
    host: Server
    room: Room | None = None

    def login(self, given: Mapping[str, Any]) -> Session:
        """By the client `ssh`."""
        return self.host.login(given["private_key"], given["certificate"], "id")

    def visit(self, given: Mapping[str, Any]) -> Guest | None:
        """By AMQP."""
        guest = Guest(given["host"], given["port"])
        if guest.authenticate(given["username"], given["password"]) and guest.enter(given["vhost"]):
            return guest
        guest.leave()
        return None


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    """All three run; the host believes the CA that `target ca` names."""
    with ExitStack() as stack:
        room = stack.enter_context(stack.enter_context(rabbitmq()).room())
        host = stack.enter_context(sshd(""))
        targets = {"hosts": HOSTS.format(server=host), "queues": QUEUES.format(room=room)}
        async with up(targets=targets, environment={"QUEUES_PASSWORD": room.admin_password}) as running:
            found = await running.sojourn("target", "ca", "hosts")
            assert found.code == 0, found.err
            (host.folder / "authorities").write_text(found.out)
            yield House(up=running, host=host, room=room)


async def reported(house: House, task: str) -> Any:
    """The report of a task as it is."""
    async with house.up.operator() as operator:
        return await operator.report(task)


async def reported_line(house: House, task: str) -> Any:
    """What it says of the one certificate."""
    (line,) = [line for line in (await reported(house, task)).leases if line.role == "hosts/echo"]
    return line


async def certain(house: House, task: str) -> Any:
    """The same once nothing more will be added to it."""
    while not (report := await reported(house, task)).final:
        await CLOCK.sleep(0.05)
    return report


async def test_a_host_refuses_the_login_and_keeps_the_session() -> None:
    """The list is written before the end is called verified; what was open survives, and that was said before."""
    async with asyncio.timeout(PATIENCE), house() as here, agent(here.up, "one") as one:
        task = (await told(one, "open", "task"))["task"]
        given = await told(one, "obtain hosts/echo", "certificate")
        session = here.login(given)
        assert session.says("forced") == "forced"
        assert not here.host.is_revoked(given["certificate"])
        finished = await here.up.sojourn("task", "kill", task, "--json")
        assert finished.code == 0, finished.err
        report = await certain(here, task)
        assert here.host.is_revoked(given["certificate"])
        refused = here.login(given)
        assert (await asyncio.to_thread(refused.rest))[0] == 255
        assert session.says("still here") == "still here"
        (line,) = [line for line in report.leases if line.role == "hosts/echo"]
        assert (line.fate, line.sessions_may_live) == (Fate.GONE, True)
        refused.close()
        session.close()


async def test_a_host_without_a_list_refuses_the_login_at_its_expiry() -> None:
    """Until then it is said to live on, and it does; then it is called expired, and never revoked."""
    async with asyncio.timeout(PATIENCE):
        with sshd("", reads_list=False) as host:
            async with up(targets={"hosts": UNLISTED.format(server=host)}) as running, agent(running, "one") as one:
                found = await running.sojourn("target", "ca", "hosts")
                (host.folder / "authorities").write_text(found.out)
                task = (await told(one, "open", "task"))["task"]
                given = await told(one, "obtain hosts/echo", "certificate")
                await told(one, "end", "state")
                here = House(up=running, host=host)
                while (line := await reported_line(here, task)).fate is Fate.IN_USE:
                    await CLOCK.sleep(0.05)  # its end is in the store, and the lease is looked at next
                assert (await asyncio.to_thread(here.login(given).rest))[0] == 0
                assert (line.fate, line.lives_until is not None) == (Fate.LIVES_ON, True)
                await certain(here, task)
                assert (await reported_line(here, task)).fate is Fate.EXPIRED
                assert (await asyncio.to_thread(here.login(given).rest))[0] == 255


async def test_a_queue_s_door_is_shut_and_connections_are_closed() -> None:
    """Nobody is in and nobody gets in; the user is gone."""
    async with asyncio.timeout(PATIENCE), house() as here, agent(here.up, "one") as one:
        await told(one, "open", "task")
        given = await told(one, "obtain queues/consumer", "password")
        guest = here.visit(given)
        assert guest is not None
        assert guest.declare("orders")
        assert here.room is not None
        assert here.room.principals() == {given["username"]}
        await told(one, "end", "state")
        while here.room.server.ask("GET", "users", given["username"]) is not None:
            await CLOCK.sleep(0.05)
        assert not guest.answers()
        assert here.visit(given) is None
        guest.leave()


async def test_what_is_not_well_is_said_by_a_check() -> None:
    """The queue is; the host's CA is, but for keys that this `up` keeps in memory."""
    async with asyncio.timeout(PATIENCE), house() as here:
        queues = await here.up.sojourn("target", "check", "queues")
        assert queues.code == 0, queues.out
        hosts = await here.up.sojourn("target", "check", "hosts", "--json")
        assert hosts.code == 1
        assert [found["name"] for found in json.loads(hosts.out)["findings"] if not found["well"]] == ["CA key"]
