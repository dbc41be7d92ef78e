"""Questions that arrive together are asked together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from attestor.node_agent.batch import Batch
from ca.errors import Malformed, Unavailable


class Server:
    """Doubles numbers; waits in each call until it is let go on."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.go = asyncio.Event()
        self.asked = asyncio.Event()

    async def ask(self, questions: Sequence[int]) -> Sequence[int]:
        """Answer."""
        self.calls.append(list(questions))
        self.asked.set()
        await self.go.wait()
        if 13 in questions:
            raise Malformed("13 is no number")
        if 99 in questions:
            raise Unavailable("not today")
        return [2 * one for one in questions]


async def test_what_arrives_during_a_call_shares_the_next() -> None:
    """The first goes alone, the rest together, and everybody gets their own answer."""
    server = Server()
    batch = Batch(server.ask, 100)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(batch([1]))
        await server.asked.wait()
        rest = [group.create_task(batch([number, number + 100])) for number in range(2, 12)]
        for _ in range(20):
            await asyncio.get_running_loop().run_in_executor(None, int)
        server.go.set()
    assert first.result() == [2]
    assert [one.result() for one in rest] == [[2 * number, 2 * number + 200] for number in range(2, 12)]
    assert len(server.calls) == 2


async def test_a_batch_is_not_larger_than_the_server_takes() -> None:
    """Two hundred and fifty questions are three calls."""
    server = Server()
    server.go.set()
    assert await Batch(server.ask, 100)(range(1000, 1250)) == [2 * one for one in range(1000, 1250)]
    assert [len(call) for call in server.calls] == [100, 100, 50]


async def test_one_bad_question_spoils_no_other() -> None:
    """Its asker hears why; the others get their answers."""
    server = Server()
    batch = Batch(server.ask, 100)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(batch([1]))
        await server.asked.wait()
        good = group.create_task(batch([5]))
        bad = group.create_task(asyncio.wait_for(_trouble(batch, 13), 60))
        await asyncio.get_running_loop().run_in_executor(None, int)
        server.go.set()
    assert (first.result(), good.result()) == ([2], [10])
    assert isinstance(bad.result(), Malformed)


async def test_a_server_that_is_down_is_asked_once() -> None:
    """Not once per question."""
    server = Server()
    server.go.set()
    with pytest.raises(Unavailable):
        await Batch(server.ask, 100)([99, 1, 2])
    assert len(server.calls) == 1


async def test_a_cancelled_asker_leaves_the_others_questions() -> None:
    """Whoever's turn it was may go away; somebody else takes over."""
    server = Server()
    batch = Batch(server.ask, 100)
    leader = asyncio.get_running_loop().create_task(batch([1]))
    await server.asked.wait()
    other = asyncio.get_running_loop().create_task(batch([2]))
    await asyncio.get_running_loop().run_in_executor(None, int)
    leader.cancel()
    server.go.set()
    assert await asyncio.wait_for(other, 60) == [4]
    with pytest.raises(asyncio.CancelledError):
        await leader


async def test_nothing_asked_is_nothing_answered() -> None:
    """And no call."""
    server = Server()
    assert await Batch(server.ask, 100)([]) == []
    assert server.calls == []


async def _trouble(batch: Batch[int, int], question: int) -> Exception:
    try:
        await batch([question])
    except Malformed as error:
        return error
    raise AssertionError(question)
