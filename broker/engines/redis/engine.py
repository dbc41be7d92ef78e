"""The verbs of the engine `redis`."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

from broker.engines.passwords import OwnPassword, new_password
from broker.engines.protocol import AccessEnded, Claim, Finding, Issued, Making
from broker.engines.redis import principal
from broker.engines.redis.check import Examination
from broker.engines.redis.claim import adopt, claim
from broker.engines.redis.reach import Connection, Reach
from broker.engines.redis.rules import role_settings
from broker.engines.redis.settings import Settings
from broker.errors import NotPossible, NotYet, OutcomeUnknown, TargetDown
from broker.model.lease import Handle
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions, Role
from ca.errors import Malformed, NotFound, Problem, Unavailable
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret

T = TypeVar("T")


class Redis:
    """One Redis or Valkey, with all its nodes."""

    kind = "redis"
    making = Making.UPSERT

    def __init__(self, settings: Settings, clock: Clock, own: OwnPassword, nodes: Sequence[Reach]) -> None:
        self._settings, self._clock, self._own, self._nodes = settings, clock, own, nodes

    def plan(self, role: Role, name: str) -> Handle:
        """Name and rules; the same whoever computes it."""
        facts = {"rules": list(role_settings(role).rules())}
        return Handle(target=role.target, engine=self.kind, name=principal.checked(name), facts=facts)

    def guarantee(self, role: Role) -> Guarantee:  # noqa: ARG002 - the same for every role
        """New logins end at once, sessions are cut; without us nothing ends anything: the server knows no expiry."""
        return Guarantee(
            new_access=NewAccess.AT_ONCE,
            new_access_within=1,
            open_sessions=OpenSessions.CUT,
            open_sessions_within=2,
            if_down=IfDown.NOTHING_ENDS_IT,
            if_down_within=None,
        )

    async def create(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """One message to each node; what fails on one is removed from all.

        Nobody there judges the deadline: we do, right before we send. What freezes after that and thaws late is found
        by the sweep.
        """
        password, rules = new_password(), role_settings(role).rules()
        proof = principal.verifier(password)

        async def work(connection: Connection) -> None:
            await principal.make(connection, handle.name, proof, rules)
            await self._save(connection)

        await self._ready(deadline)
        try:
            await self._on_each(work)
        except Problem as problem:
            await self._unmake(handle, problem)
            raise
        return self._issued(handle, password)

    async def replace(self, handle: Handle, role: Role, until: datetime, deadline: datetime) -> Issued:  # noqa: ARG002
        """Another password in the same transaction that cuts whoever is in; never opened by it."""
        password = new_password()
        proof = principal.verifier(password)

        async def work(connection: Connection) -> None:
            await principal.replace(connection, handle.name, proof)
            await self._save(connection)

        await self._ready(deadline)
        await self._on_each(work)
        return self._issued(handle, password)

    async def renew(self, handle: Handle, until: datetime) -> None:  # noqa: ARG002 - nothing there knows it
        """Only look that it is still on every node: none knows an end that could be moved."""
        for node in self._nodes:
            if await node.run(lambda connection: principal.flags(connection, handle.name)) is None:
                raise NotFound("the target has no principal of that name")

    async def occupy(self, handle: Handle) -> None:
        """Make it something that can't log in; a create that comes later is not refused (`Making.UPSERT`)."""

        async def work(connection: Connection) -> None:
            await principal.shut(connection, handle.name)
            await self._save(connection)

        await self._on_each(work)

    async def end_access(self, handle: Handle) -> AccessEnded:
        """Shut, cut and look, on every node; absent is success."""
        name = principal.checked(handle.name)

        async def work(connection: Connection) -> int:
            if await principal.flags(connection, name) is not None:
                await principal.shut(connection, name)
            cut = await principal.cut(connection, self._clock, name)
            if "on" in (await principal.flags(connection, name) or ()):
                raise NotYet("the principal was made anew while it was ended")
            await self._save(connection)
            return cut

        cuts = await self._on_all(work)
        return AccessEnded(sessions_cut=sum(cuts), endpoints=len(self._nodes))

    async def clean_up(self, handle: Handle) -> None:
        """Remove it from every node; absent is success."""
        name = principal.checked(handle.name)

        async def work(connection: Connection) -> None:
            await principal.remove(connection, name)
            await self._save(connection)

        await self._on_all(work)

    async def names(self, prefix: str) -> Sequence[str]:
        """Every user with our prefix, on whichever node."""
        found = [await node.run(lambda connection: principal.names(connection, prefix)) for node in self._nodes]
        return sorted(set[str]().union(*found))

    async def claim(self, installation: str, incarnation: str) -> Claim:
        """See `claim.py`; the claims of all nodes, and the one that differs where one does."""

        async def work(connection: Connection) -> Claim:
            said = await claim(connection, installation, incarnation)
            await self._save(connection)
            return said

        claims = [await node.run(work) for node in self._nodes]
        return next((said for said in claims if said.incarnation != incarnation), claims[0])

    async def adopt(self, installation: str, incarnation: str) -> None:
        """See `claim.py`."""

        async def work(connection: Connection) -> None:
            await adopt(connection, installation, incarnation)
            await self._save(connection)

        for node in self._nodes:
            await node.run(work)

    async def check(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """See `check.py`."""
        return await Examination(self, self._nodes, self._settings, self._clock).run(roles, prefix)

    async def change_password(self, account: str, password: Secret) -> None:
        """One password, on every node; the same again is no error.

        Raises:
            NotPossible: users are not kept, so that a restart would bring the old password back.
            Malformed, NotFound, TargetDown, OutcomeUnknown: it is not known which one is in force.
        """
        if self._settings.persist != "aclfile":
            raise NotPossible("a restart of the target would bring the old password back: it needs `persist: aclfile`")
        proof, name = principal.verifier(password.reveal()), _account(account)

        async def work(connection: Connection) -> None:
            if await principal.flags(connection, name) is None:
                raise NotFound(f"the target has no account `{name}`")
            await connection.run(("ACL", "SETUSER", name, "resetpass", proof))
            await self._save(connection)

        await self._on_each(work)

    async def opens(self, account: str, password: Secret) -> bool:
        """Whether it logs in on every node. Raises TargetDown."""
        name = _account(account)
        return all([await node.admits(name, password) for node in self._nodes])

    async def cut_sessions(self, account: str) -> int:
        """End every session of `account` on every node, but our own connections. Raises NotYet, TargetDown."""
        name, total = _account(account), 0
        for node in self._nodes:
            total += await node.run(functools.partial(principal.cut, clock=self._clock, name=name, spared=node.numbers))
        return total

    @property
    def account(self) -> str:
        """Whom we log in as."""
        return self._settings.user

    def log_in_with(self, password: Secret | None) -> None:
        """Log in with this one from now on; connections made before are given up when they are next looked at."""
        self._own.become(password)
        for node in self._nodes:
            node.renew()

    async def _ready(self, deadline: datetime) -> None:
        """Look at the deadline last. Of several nodes each must answer first: what is made must be made on all."""
        if len(self._nodes) > 1:
            for node in self._nodes:
                await node.ready()
        if self._clock.now() > deadline:
            raise Unavailable("the deadline of the call passed before it was sent, and nothing was done")

    async def _on_each(self, work: Callable[[Connection], Awaitable[None]]) -> None:
        """On the first node, and when it is done there on the others; what isn't done on all of them is not known."""
        first, *others = self._nodes
        await first.run(work)
        for node in others:
            try:
                await node.run(work)
            except TargetDown as problem:
                raise OutcomeUnknown(f"it was done on `{first}` and not on `{node}`: {problem}") from None

    async def _on_all(self, work: Callable[[Connection], Awaitable[T]]) -> list[T]:
        """On every node that can be reached, whatever became of the others; then raise what went wrong first."""
        done: list[T] = []
        trouble: Problem | None = None
        for node in self._nodes:
            try:
                done.append(await node.run(work))
            except Problem as problem:
                trouble = trouble or problem
        if trouble is not None:
            raise trouble
        return done

    async def _save(self, connection: Connection) -> None:
        if self._settings.persist == "aclfile":
            await principal.save(connection)

    async def _unmake(self, handle: Handle, problem: Problem) -> None:
        """It was refused somewhere: take it back everywhere, now; whoever holds its lease does it again if need be."""
        if isinstance(problem, (OutcomeUnknown, TargetDown)):
            return
        try:
            await self.end_access(handle)
            await self.clean_up(handle)
        except Problem:
            return

    def _issued(self, handle: Handle, password: str) -> Issued:
        at, database = self._settings.addresses()[0], self._settings.database
        host = f"[{at.host}]" if ":" in at.host else at.host
        scheme = "redis" if self._settings.encryption == "off" else "rediss"
        url = f"{scheme}://{handle.name}:{quote(password)}@{host}:{at.port}/{database}"
        fields: dict[str, str | int] = {"host": at.host, "port": at.port, "username": handle.name, "database": database}
        return Issued(fields=fields, secret={"password": Secret(password), "url": Secret(url)})


def _account(name: str) -> str:
    if not name or len(name) > 80 or not name.isprintable() or " " in name:
        raise Malformed("the name of an account has 1 to 80 printable characters and no space")
    return name
