"""Identities of tasks, where the server is ours: a broker asks for them, says that their tasks live, takes them back.

What a broker may rely on: a name is granted once or never; after `withdraw` it is not in force, and no grant that was
under way comes after it; what is not confirmed for a while is not renewed. So whoever does not know how a call ended
withdraws its name, and knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from attestor._proto import task_pb2 as pb
from attestor.client.tasks import TaskLink
from attestor.wire import task_identity as wire
from attestor.wire.task_identity import MOST_AT_ONCE, Grant, Granted, Withdrawal


@dataclass(frozen=True, slots=True)
class TaskIdentities:
    """Over the link of `attestor.client.tasks`. Every call raises what `TaskLink.ask` raises."""

    link: TaskLink

    @property
    def connected(self) -> bool:
        """Whether the server is there to be asked."""
        return self.link.connected

    async def grant(self, grant: Grant) -> Granted:
        """Ask for one.

        Raises:
            Stale: it is too late for it, by the server's clock.
            NotFound, Conflict: the instance is not known, or has ended; or something else is in the way.
            Exhausted: the instance has as many as one may have.
        """
        answer = await self.link.ask(wire.GRANT, wire.encode_grant(grant), pb.GrantResponse)
        return wire.decode_granted(answer)

    async def withdraw(self, name: str, *, close: bool = False) -> int:
        """End one, or take its name; with `close` it is not listed any more. How many leaves were taken back."""
        asked = wire.encode_withdrawal(Withdrawal(name=name, close=close))
        return (await self.link.ask(wire.WITHDRAW, asked, pb.WithdrawResponse)).leaves

    async def names(self, prefix: str) -> Sequence[str]:
        """All that begin with `prefix` and are not closed, sorted."""
        found: list[str] = []
        while page := (await self._page(prefix, found[-1] if found else "")).names:
            found += page
        return found

    async def confirm(self, names: Iterable[str]) -> Sequence[str]:
        """Say that their tasks live; answers those of which the server has nothing."""
        left, unknown = iter(names), list[str]()
        while piece := tuple(islice(left, MOST_AT_ONCE)):
            unknown += (await self.link.ask(wire.CONFIRM, wire.encode_names(piece), pb.ConfirmResponse)).unknown
        return unknown

    async def _page(self, prefix: str, after: str) -> pb.ListResponse:
        return await self.link.ask(wire.LIST, wire.encode_list(prefix, after), pb.ListResponse)
