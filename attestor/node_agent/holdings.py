"""All that the node agent holds: an instance for each attested process, from its first leaf to its end.

One process, one instance, one pidfd, however many connections it opens. An instance is journalled before anything is
handed over and reported in the live set from then on, until its process is gone; there is no other way out of the set.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from attestor.instance import new_id
from attestor.node_agent.held import Held
from attestor.node_agent.journal import Journal
from attestor.node_agent.peer import Peer, ProcessName, reopen
from attestor.wire.node import LiveSet
from ca.errors import Exhausted


class Holdings:
    """All that is held. `ended` is called when a process was seen to end, `counter` rises with the live set."""

    def __init__(self, journal: Journal, *, most: int, ended: Callable[[], object]) -> None:
        self._journal = journal
        self._most = most
        self._ended = ended
        self._held: dict[ProcessName, Held] = {}
        self._by_instance: dict[str, Held] = {}
        self._counter = 0

    def restore(self) -> None:
        """Take up again what the journal names and still runs; the rest is reported as gone by its absence."""
        for instance, name in self._journal.live.items():
            pidfd = reopen(name)
            if pidfd is None:
                self._journal.end(instance)
            else:
                self._insert(Held(instance=instance, name=name, pidfd=pidfd, counter=1))

    def count_from(self, counter: int) -> None:
        """Go on above the newest live set the server has applied."""
        if self._counter <= counter:
            self._counter = counter + 1
            for held in self._settled():
                held.counter = max(held.counter, 1)

    @contextmanager
    def holding(self, peer: Peer) -> Iterator[Held]:
        """What is held for the process of `peer`, for as long as it is used; its pidfd is ours from now on.

        Who was given nothing is forgotten afterwards: it keeps no descriptor of ours busy.

        Raises:
            Exhausted: so many processes are held, in all or of this user, that one more would leave none for the rest.
        """
        held = self._of(peer)
        held.users += 1
        try:
            yield held
        finally:
            held.users -= 1
            if held.counter == 0 and held.users == 0 and held.pidfd >= 0:
                self._remove(held)

    async def settle(self, held: Held) -> None:
        """Journal `held` and put it into the live set, once. Raises Unavailable: then nothing may be handed over."""
        if held.counter == 0:
            await self._journal.begin(held.instance, held.name)
            if held.pidfd < 0:  # it ended meanwhile and was forgotten; so must the line be
                self._journal.end(held.instance)
                held.check()
            self._counter += 1
            held.counter = self._counter

    def live(self) -> LiveSet:
        """The complete live set."""
        return LiveSet(counter=self._counter, instances=frozenset(one.instance for one in self._settled()))

    def bar(self, instances: frozenset[str]) -> None:
        """The server gives these nothing more: whoever waits for them is told."""
        for instance in instances:
            held = self._by_instance.get(instance)
            if held is not None and not held.barred:
                held.barred = True
                held.strip()
                held.change.announce()

    def drop_all(self) -> None:
        """This node was sent away and its instances ended: nobody keeps anything, and who calls again begins anew."""
        for held in self:
            held.barred = True
            self._journal.end(held.instance)
            self._remove(held)
            held.change.announce()

    def announce(self) -> None:
        """Something that concerns everybody changed."""
        for held in self:
            held.change.announce()

    def forget_tokens(self) -> None:
        """The keys that sign changed: no token is given a second time."""
        for held in self:
            held.tokens.clear()

    def lineage(self, pairs: Iterable[tuple[int, int]]) -> tuple[str, ...]:
        """The instances among these processes, each by number and start time."""
        known = {(one.name.pid, one.name.start_time): one.instance for one in self._settled()}
        return tuple(known[pair] for pair in pairs if pair in known)

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def close(self) -> None:
        """Let go of every process; the journal still names them."""
        for held in self:
            self._let_go(held)
            held.change.announce()

    def _of(self, peer: Peer) -> Held:
        known = self._held.get(peer.name)
        if known is not None:
            known.uid = peer.uid
            peer.close()
            return known
        if len(self._held) >= self._most:
            raise Exhausted(f"this node agent holds identities for {self._most} processes and takes no more")
        if sum(held.uid == peer.uid for held in self._held.values()) >= max(1, self._most // 2):
            raise Exhausted(f"the user {peer.uid} has half of the {self._most} processes held here and gets no more")
        held = Held(instance=new_id(), name=peer.name, uid=peer.uid, pidfd=peer.release())
        self._insert(held)
        return held

    def _settled(self) -> Iterator[Held]:
        return (held for held in self._held.values() if held.counter)

    def _insert(self, held: Held) -> None:
        self._held[held.name] = held
        self._by_instance[held.instance] = held
        asyncio.get_running_loop().add_reader(held.pidfd, self._on_exit, held)

    def _on_exit(self, held: Held) -> None:
        settled = held.counter > 0
        self._remove(held)
        held.change.announce()
        if settled:
            self._counter += 1
            self._journal.end(held.instance)
            self._ended()

    def _remove(self, held: Held) -> None:
        del self._held[held.name]
        del self._by_instance[held.instance]
        self._let_go(held)

    def _let_go(self, held: Held) -> None:
        asyncio.get_running_loop().remove_reader(held.pidfd)
        os.close(held.pidfd)
        held.pidfd = -1
        held.strip()
