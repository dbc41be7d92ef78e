"""Questions that arrive together are asked together.

Whoever's turn it is asks for everybody who waits: while one call is on its way the next batch gathers, and there is no
task and no timer. A caller that is cancelled in its turn leaves the others' questions for the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ca.errors import Problem

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(slots=True, eq=False)
class _Asked(Generic[Q, A]):
    question: Q
    answers: tuple[A, ...] = ()
    trouble: Problem | None = None
    given_up: bool = False

    @property
    def settled(self) -> bool:
        return bool(self.answers) or self.trouble is not None


class Batch(Generic[Q, A]):
    """Asks with `ask`, at most `most` questions at a time; it answers in the order asked."""

    def __init__(self, ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], most: int) -> None:
        self._ask = ask
        self._most = most
        self._waiting: deque[_Asked[Q, A]] = deque()
        self._turn = asyncio.Lock()

    async def __call__(self, questions: Sequence[Q]) -> list[A]:
        """The answers to `questions`. Raises the Problem of the first that has none."""
        mine: list[_Asked[Q, A]] = [_Asked(question) for question in questions]
        self._waiting.extend(mine)
        try:
            while not all(one.settled for one in mine):
                async with self._turn:
                    if not all(one.settled for one in mine):
                        await self._round()
        finally:
            for one in mine:
                one.given_up = True
        for one in mine:
            if one.trouble is not None:
                raise one.trouble
        return [one.answers[0] for one in mine]

    async def _round(self) -> None:
        batch: list[_Asked[Q, A]] = []
        while self._waiting and len(batch) < self._most:
            asked = self._waiting.popleft()
            if not asked.given_up:
                batch.append(asked)
        try:
            await self._settle(batch)
        except BaseException:
            self._waiting.extendleft(one for one in reversed(batch) if not one.settled)
            raise

    async def _settle(self, batch: Sequence[_Asked[Q, A]]) -> None:
        try:
            answers = await self._ask([one.question for one in batch])
        except Problem as problem:
            if problem.retryable or len(batch) == 1:
                for one in batch:
                    one.trouble = problem
                return
            for one in batch:  # one bad question must not spoil the others' answers
                await self._settle([one])
            return
        for one, answer in zip(batch, answers, strict=True):
            one.answers = (answer,)
