"""The broker's REST surface, typed: for agents over mutual TLS, for operators over the broker's own socket.

    async with Broker.connect(source, "https://127.0.0.1:8443") as broker:
        opened = await broker.open_task(OpenTask(purpose="reconcile november", scope=ScopeBody(roles=["orders-db/*"])))

    async with Broker.on_socket(Path("/run/sojourn/admin/broker.sock")) as broker:
        await broker.end(task, EndTask(outcome="cancelled", words="seen enough"))

Each call is one request and raises the Problem it was answered with (`answers.py`), or Unreachable. It is repeated only
at another broker over the same store, if there is one and twice is once; whoever repeats opening a task or asking for a
secret gives the same `key`, so that it is made once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Self
from urllib.parse import quote

import aiohttp
from joserfc.jwk import ECKey

from attestor.client.backoff import Backoff, scattered
from attestor.client.http import client_session
from attestor.client.source import X509Material
from broker.client.address import START, check_urls
from broker.client.addresses import Addresses
from broker.client.answers import read
from broker.client.farewell import Sockets
from broker.client.stream import BEAT, END, Snapshot, told
from broker.client.transport import Transport
from broker.wire.audit import EntryPage, HeadPage
from broker.wire.credentials import AskCredential, CredentialTold
from broker.wire.decisions import AskDecision, DecisionTold
from broker.wire.disowning import Disown, DisownTold
from broker.wire.events import EventLine
from broker.wire.kills import AskKill, KillTold
from broker.wire.leases import Acknowledge, LeasePage, LeaseTold, QuarantinePage, RenewLease
from broker.wire.operators import AddOperator, OperatorPage, OperatorTold
from broker.wire.reports import ReportTold
from broker.wire.roles import RolePage, TargetPage
from broker.wire.targets import AdoptedTold, AdoptTarget, AuthorityTold, FindingsTold, Reloaded, RotationTold
from broker.wire.tasks import Beat, EndTask, Heartbeat, OpenTask, StateChange, TaskOpened, TaskPage, TaskTold, TaskTree
from broker.wire.values import PutValue, ValuePut, VersionsTold
from ca.errors import Problem
from ca.runtime.clock import Clock, SystemClock
from ca.runtime.leaving import still_wanted
from ca.spiffe.id import SpiffeId

BROKER_PATH = "/sojourn/broker"
"""Who a broker is, in its clients' own trust domain."""


class Broker:
    """One broker; made by `connect` or `on_socket`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @classmethod
    @asynccontextmanager
    async def connect(cls, source: X509Material, url: str) -> AsyncIterator[Self]:
        """As the workload `source` says we are, to the broker of the same trust domain at `url`. Raises Malformed.

        Several addresses, with commas between them, are those of brokers over one store: any of them is asked.
        """

        def is_broker(found: SpiffeId) -> bool:
            return found.trust_domain == source.svid.id.trust_domain and found.path == BROKER_PATH

        addresses, sockets = Addresses(check_urls(url)), Sockets()
        connector = aiohttp.TCPConnector(socket_factory=sockets.make)
        try:
            async with client_session(source, is_broker, connector=connector) as session:
                where = str(addresses)
                yield cls(Transport(session=session, where=where, hint=START, addresses=addresses, clock=source.clock))
        finally:
            await sockets.closed(source.clock)

    @classmethod
    @asynccontextmanager
    async def on_socket(cls, path: Path, clock: Clock | None = None) -> AsyncIterator[Self]:
        """As an operator."""
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession("http://broker", connector=connector) as session:
            yield cls(Transport(session=session, where=f"`{path}`", hint=START, clock=clock or SystemClock()))

    @property
    def clock(self) -> Clock:
        """The clock it goes by."""
        return self._transport.clock

    def proven_by(self, key: ECKey) -> Broker:
        """The same broker, each request proven by the key a task was opened with."""
        return Broker(self._transport.proven_by(key))

    async def open_task(self, ask: OpenTask, *, key: str | None = None) -> TaskOpened:
        """Open a task; `key` makes a repeated request the same one."""
        headers = _given(**{"Idempotency-Key": key})
        content = await self._transport.call("POST", "/v1/tasks", ask, headers=headers, again=key is not None)
        return read(content, TaskOpened)

    async def tasks(self, after: str | None = None, *, live: bool = False, limit: int = 100) -> TaskPage:
        """A page of tasks in the order of their birth."""
        query = {"limit": str(limit), **_given(after=after, live="true" if live else None)}
        return read(await self._transport.call("GET", "/v1/tasks", query=query), TaskPage)

    async def task(self, task: str) -> TaskTold:
        """One task."""
        return read(await self._transport.call("GET", f"/v1/tasks/{task}"), TaskTold)

    async def tree(self, task: str) -> TaskTree:
        """A task and everything below it."""
        return read(await self._transport.call("GET", f"/v1/tasks/{task}/tree"), TaskTree)

    async def report(self, task: str) -> ReportTold:
        """The closing report as it stands."""
        return read(await self._transport.call("GET", f"/v1/tasks/{task}/report"), ReportTold)

    async def beat(self, task: str, ask: Heartbeat) -> Beat:
        """Say that a task lives and which secrets it holds."""
        return read(await self._transport.call("POST", f"/v1/tasks/{task}/heartbeat", ask, again=True), Beat)

    async def change(self, task: str, ask: StateChange) -> TaskTold:
        """Wait, resume or narrow."""
        return read(await self._transport.call("POST", f"/v1/tasks/{task}/state", ask), TaskTold)

    async def end(self, task: str, ask: EndTask) -> TaskTold:
        """End a task; twice is once."""
        return read(await self._transport.call("POST", f"/v1/tasks/{task}/end", ask, again=True), TaskTold)

    async def kill(self, ask: AskKill) -> KillTold:
        """End tasks as an operator, or see which would end; `left` says whether there are more."""
        return read(await self._transport.call("POST", "/v1/kills", ask), KillTold)

    async def ask(self, task: str, ask: AskCredential, *, key: str | None = None) -> CredentialTold:
        """Ask for a secret; `key` makes a repeated request the same one."""
        headers = _given(**{"Idempotency-Key": key})
        path = f"/v1/tasks/{task}/credentials"
        content = await self._transport.call("POST", path, ask, headers=headers, again=key is not None)
        return read(content, CredentialTold)

    async def decide(self, ask: AskDecision) -> DecisionTold:
        """May this be done?"""
        return read(await self._transport.call("POST", "/v1/decisions", ask, again=True), DecisionTold)

    async def roles(self) -> RolePage:
        """What may be asked for."""
        return read(await self._transport.call("GET", "/v1/roles"), RolePage)

    async def leases(
        self,
        task: str | None = None,
        *,
        open_only: bool = False,
        overdue: bool = False,
        after: str | None = None,
        limit: int = 100,
    ) -> LeasePage:
        """Leases of one task, or a page of all; only those that are open, or overdue."""
        only = _given(open="true" if open_only else None, overdue="true" if overdue else None)
        query = {"limit": str(limit), **_given(task=task, after=after), **only}
        return read(await self._transport.call("GET", "/v1/leases", query=query), LeasePage)

    async def ack(self, lease: str) -> LeaseTold:
        """Its secret was received."""
        return read(await self._transport.call("POST", f"/v1/leases/{lease}/ack", Acknowledge(), again=True), LeaseTold)

    async def renew(self, lease: str, ask: RenewLease | None = None) -> LeaseTold:
        """Move its end ahead."""
        return read(
            await self._transport.call("POST", f"/v1/leases/{lease}/renew", ask or RenewLease(), again=True), LeaseTold
        )

    async def revoke(self, lease: str) -> LeaseTold:
        """End it."""
        return read(await self._transport.call("DELETE", f"/v1/leases/{lease}", again=True), LeaseTold)

    async def quarantined(self) -> QuarantinePage:
        """Rows of the store that can't be read."""
        return read(await self._transport.call("GET", "/v1/quarantine"), QuarantinePage)

    async def disown_lease(self, lease: str, ask: Disown) -> DisownTold:
        """Give up one lease unverified: the first of two operators proposes, the second confirms."""
        return read(await self._transport.call("POST", f"/v1/leases/{lease}/disown", ask), DisownTold)

    async def disown_target(self, name: str, ask: Disown) -> DisownTold:
        """Give up everything that is open at a target."""
        return read(await self._transport.call("POST", f"/v1/targets/{quote(name, safe='')}/disown", ask), DisownTold)

    async def targets(self) -> TargetPage:
        """Every target."""
        return read(await self._transport.call("GET", "/v1/targets"), TargetPage)

    async def check_target(self, name: str) -> FindingsTold:
        """Prove a target with a probe user."""
        return read(await self._transport.call("POST", f"/v1/targets/{quote(name, safe='')}/check"), FindingsTold)

    async def authority(self, name: str) -> AuthorityTold:
        """What a target's owner installs to believe what the broker signs."""
        return read(await self._transport.call("GET", f"/v1/targets/{quote(name, safe='')}/authority"), AuthorityTold)

    async def rotate_target(self, name: str) -> RotationTold:
        """Give the account the broker itself logs in as another password."""
        return read(await self._transport.call("POST", f"/v1/targets/{quote(name, safe='')}/rotation"), RotationTold)

    async def forget_rotation(self, name: str) -> None:
        """Let the password of the settings count again."""
        await self._transport.call("DELETE", f"/v1/targets/{quote(name, safe='')}/rotation")

    async def adopt_target(self, name: str, ask: AdoptTarget) -> AdoptedTold:
        """End a target's quarantine after a restore, or only see what is there."""
        return read(await self._transport.call("POST", f"/v1/targets/{quote(name, safe='')}/adopt", ask), AdoptedTold)

    async def reload_targets(self, *, confirm: bool = False) -> Reloaded:
        """Have the targets' settings read again; `confirm` ends the secrets that have no room in them."""
        query = {"confirm": "true"} if confirm else None
        return read(await self._transport.call("POST", "/v1/targets/reload", query=query), Reloaded)

    async def audit(self, after: str | None = None, *, task: str | None = None, limit: int = 1000) -> EntryPage:
        """A page of the audit, writer by writer, after `<writer>:<number>`."""
        query = {"limit": str(limit), **_given(after=after, task=task)}
        return read(await self._transport.call("GET", "/v1/audit", query=query), EntryPage)

    async def heads(self) -> HeadPage:
        """Where each writer's chain ends."""
        return read(await self._transport.call("GET", "/v1/audit/heads"), HeadPage)

    async def put_value(self, value: str, ask: PutValue) -> ValuePut:
        """Let it be the newest version of `target/name`."""
        return read(await self._transport.call("PUT", _value(value), ask), ValuePut)

    async def value_versions(self, value: str) -> VersionsTold:
        """What is known of every version of `target/name`, the newest first."""
        return read(await self._transport.call("GET", _value(value)), VersionsTold)

    async def destroy_value(self, value: str, version: int) -> None:
        """Let one version be no more."""
        await self._transport.call("DELETE", f"{_value(value)}/{version}")

    async def add_operator(self, ask: AddOperator) -> OperatorTold:
        """Bind a certificate to verbs."""
        return read(await self._transport.call("POST", "/v1/operators", ask), OperatorTold)

    async def operators(self) -> OperatorPage:
        """Who may do what over the network."""
        return read(await self._transport.call("GET", "/v1/operators"), OperatorPage)

    async def remove_operator(self, name: str) -> None:
        """Take an operator's verbs away."""
        await self._transport.call("DELETE", f"/v1/operators/{quote(name, safe='')}")

    async def events(
        self, task: str | None = None, *, cursor: str | None = None
    ) -> AsyncGenerator[EventLine | Snapshot, None]:
        """Follow what happens, of one task's tree or of everything, for as long as it is read.

        A stream that breaks, or falls silent, is taken up again where it was; what can't be gone on from comes as a
        Snapshot. Without a cursor it begins now. Leave it through `contextlib.aclosing`.
        """
        backoff = Backoff(self.clock, spread=scattered)
        while True:
            try:
                stream = self._transport.messages("/v1/events", query=_given(task=task), cursor=cursor)
                async with aclosing(stream) as messages:
                    async for message in messages:
                        backoff.reset()
                        if message.event == BEAT:
                            cursor = cursor or message.data or None
                        elif message.event == END:
                            break
                        else:
                            cursor = message.id or cursor
                            yield told(message)
            except Problem as problem:
                if not problem.retryable:
                    raise
            still_wanted()
            await backoff.wait()


def _value(value: str) -> str:
    target, _, name = value.partition("/")
    return f"/v1/values/{quote(target, safe='')}/{quote(name, safe='')}"


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
