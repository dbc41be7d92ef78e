"""What a grant and an ending will need at a target: looked at, then proved with a probe that is really logged in."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta

from broker.engines.protocol import Engine, Finding
from broker.engines.rabbitmq.ending import connections, nodes
from broker.engines.rabbitmq.knock import Door, knocking
from broker.engines.rabbitmq.reach import Reach
from broker.engines.rabbitmq.settings import Settings, role_settings
from broker.errors import TargetDown
from broker.model.role import Role
from ca.errors import Problem
from ca.runtime.clock import Clock


class Examination:
    """One check of one target."""

    def __init__(self, engine: Engine, reach: Reach, settings: Settings, clock: Clock) -> None:
        self._engine, self._reach, self._settings, self._clock = engine, reach, settings, clock
        self._found: list[Finding] = []

    async def run(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """Every finding; a target that can't be reached is a finding too."""
        try:
            await self._server()
            await self._vhosts({right.vhost for role in roles for right in role_settings(role).permissions})
        except Problem as problem:
            fix = "start it, or mend management, user, password"
            self._say("reachable", well=False, detail=str(problem), fix=fix)
            return self._found
        if all(finding.well for finding in self._found):
            for role in roles:
                await self._probe(role, prefix)
        return self._found

    def _say(self, name: str, *, well: bool, detail: str, fix: str | None = None) -> None:
        self._found.append(Finding(name=name, well=well, detail=detail, fix=None if well else fix))

    async def _server(self) -> None:
        version = (await self._reach.get("overview", query="columns=rabbitmq_version")).row().text("rabbitmq_version")
        self._say("reachable", well=True, detail=f"RabbitMQ {version[:40]}")
        tags = (await self._reach.get("whoami")).row().texts("tags")
        user = self._settings.user
        fix = f"rabbitmqctl set_user_tags {user} administrator"
        self._say("may make users", well="administrator" in tags, detail=f"{user}: {', '.join(tags)}", fix=fix)
        fix = "RabbitMQ 3.10 or newer is needed: older ones can't tell at once who is connected"
        try:
            await connections(self._reach, user)
        except Problem as problem:
            self._say("tells who is connected", well=False, detail=str(problem), fix=fix)
        else:
            self._say("tells who is connected", well=True, detail="by its tracking, without delay")
        try:
            self._say("whole cluster", well=True, detail=f"{await nodes(self._reach)} nodes, all to be seen")
        except Problem as problem:
            self._say("whole cluster", well=False, detail=str(problem), fix="an ending waits for every node")

    async def _vhosts(self, wanted: set[str]) -> None:
        there = {row.text("name") for row in (await self._reach.get("vhosts", query="columns=name")).rows()}
        for vhost in sorted(wanted):
            well = vhost in there
            detail = "is there" if well else "is not there"
            self._say(f"virtual host {vhost}", well=well, detail=detail, fix=f"rabbitmqctl add_vhost '{vhost}'")

    async def _probe(self, role: Role, prefix: str) -> None:
        handle = self._engine.plan(role, f"{prefix}probe{secrets.token_hex(7)}")
        soon = self._clock.now() + timedelta(seconds=60)
        try:
            issued = await self._engine.create(handle, role, soon, soon)
            vhost = str(issued.fields["vhost"])
            outcome = await self._visit(role, handle.name, issued.secret["password"].reveal(), vhost)
        except Problem as error:
            outcome = f"failed: {error}"
        finally:
            await self._engine.end_access(handle)
            await self._engine.clean_up(handle)
        fix = "see the detail; nothing was left behind"
        self._say(f"role {role.full_name}", well=outcome.startswith("created"), detail=outcome, fix=fix)

    async def _visit(self, role: Role, name: str, password: str, vhost: str) -> str:
        at = (self._settings.host, self._settings.amqp_port, self._settings.agents_tls())
        async with knocking(*at) as door:
            if not await door.authenticate(name, password) or not await door.enter(vhost):
                return "failed: its login was refused"
            await self._engine.end_access(self._engine.plan(role, name))
            if await door.answers():
                return "its connection was not closed"
        async with knocking(*at) as door:
            if await _admits(door, name, password):
                return "it could log in after it was ended"
        return "created, logged in, cut off, refused, deleted"


async def _admits(door: Door, name: str, password: str) -> bool:
    try:
        return await door.authenticate(name, password)
    except TargetDown:
        return False
