"""What a grant and an ending will need at a target: looked at, then proved with a probe that is really logged in."""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Sequence
from datetime import timedelta

from redis.exceptions import ResponseError

from broker.engines.protocol import Engine, Finding
from broker.engines.redis.reach import FAILURES, Connection, Reach
from broker.engines.redis.settings import Settings
from broker.model.role import Role
from ca.errors import Problem
from ca.runtime.clock import Clock

_VERSION = re.compile(r"^(redis|valkey)_version:(\d+)\.(\d+)\S*\r?$", re.MULTILINE)
_NEEDED = "+acl +client +time +ping +info +multi +exec"


class Examination:
    """One check of one target."""

    def __init__(self, engine: Engine, nodes: Sequence[Reach], settings: Settings, clock: Clock) -> None:
        self._engine, self._nodes, self._settings, self._clock = engine, nodes, settings, clock
        self._found: list[Finding] = []

    async def run(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """Every finding; a node that can't be reached is a finding too."""
        for node in self._nodes:
            try:
                await node.run(functools.partial(self._node, node))
            except Problem as problem:
                fix = f"start it, mend host, port, user, password, or ACL SETUSER {self._settings.user} {_NEEDED}"
                self._say(f"reachable {node}", well=False, detail=str(problem), fix=fix)
        if all(finding.well for finding in self._found):
            for role in roles:
                await self._probe(role, prefix)
        return self._found

    def _say(self, name: str, *, well: bool, detail: str, fix: str | None = None) -> None:
        self._found.append(Finding(name=name, well=well, detail=detail, fix=None if well else fix))

    async def _node(self, node: Reach, connection: Connection) -> None:
        (text, number) = await connection.run(("INFO", "server"), ("CLIENT", "ID"))
        versions = {name: (int(major), int(minor)) for name, major, minor in _VERSION.findall(str(text))}
        version = max(versions.values(), default=(0, 0))
        self._say(f"reachable {node}", well=True, detail="it answers")
        detail = f"{'Valkey' if 'valkey' in versions else 'Redis'} {version[0]}.{version[1]}"
        self._say(f"version {node}", well=version >= (7, 0), detail=detail, fix="Redis 7.0 or newer is needed")
        (seen,) = await connection.run(("CLIENT", "LIST", "ID", number))
        direct = f"id={number} " in str(seen)
        fix = "connect to the node itself: behind a proxy a cut session proves nothing"
        self._say(f"direct {node}", well=direct, detail="no proxy between us", fix=fix)
        await self._default(node, connection)
        await self._aclfile(node, connection)

    async def _default(self, node: Reach, connection: Connection) -> None:
        (known,) = await connection.run(("ACL", "GETUSER", "default"))
        flags = set(known[1]) if isinstance(known, list) and len(known) > 1 else {"nopass", "on"}
        shut = not {"nopass", "on"} <= flags
        fix = "ACL SETUSER default off, or give it a password: without one leases mean nothing"
        self._say(f"nobody without a password {node}", well=shut, detail="the user `default`", fix=fix)

    async def _aclfile(self, node: Reach, connection: Connection) -> None:
        if self._settings.persist != "aclfile":
            return
        try:
            await connection.run(("ACL", "SAVE"))
            well = True
        except ResponseError:
            well = False
        fix = "start it with `aclfile /path`, writable, or say `persist: none`"
        self._say(f"users outlive a restart {node}", well=well, detail="ACL SAVE", fix=fix)

    async def _probe(self, role: Role, prefix: str) -> None:
        handle, now = self._engine.plan(role, f"{prefix}probe{secrets.token_hex(7)}"), self._clock.now()
        soon = now + timedelta(seconds=60)
        outcome = "created, logged in, cut off, refused, removed"
        try:
            issued = await self._engine.create(handle, role, soon, soon)
            password = issued.secret["password"]
            sessions = [await node.log_in(handle.name, password) for node in self._nodes]
            if None in sessions:
                outcome = "it could not log in on every node"
            await self._engine.end_access(handle)
            if any([session is not None and await _answers(session) for session in sessions]):
                outcome = "its session was not cut"
            if any([await node.admits(handle.name, password) for node in self._nodes]):
                outcome = "it could log in after it was ended"
        except Problem as error:
            outcome = f"failed: {error}"
        finally:
            await self._engine.end_access(handle)
            await self._engine.clean_up(handle)
        well = outcome.startswith("created")
        fix = f"see the detail; ACL SETUSER {self._settings.user} {_NEEDED}"
        self._say(f"role {role.full_name}", well=well, detail=outcome, fix=fix)


async def _answers(session: Connection) -> bool:
    """Whether anything at all comes back, a refusal too."""
    try:
        await session.run(("PING",))
    except ResponseError:
        return True
    except FAILURES:
        return False
    finally:
        await session.close()
    return True
