"""What an operator's kill reaches: one task, a tree, an agent, all below a path, a trust domain, an instance.

A task always dies with everything below it, so a kill is larger than what it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from broker.model.ids import TaskId
from broker.model.task import Task


class Reach(StrEnum):
    """What is named."""

    TASK = "task"
    TREE = "tree"
    AGENT = "agent"
    PATH = "path"
    TRUST_DOMAIN = "trust_domain"
    INSTANCE = "instance"


NARROW = frozenset({Reach.TASK, Reach.TREE})
"""What whoever may end a task may kill; anything wider needs a verb of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """`name` is a task's id, a SPIFFE ID (of an agent, or what a path begins with), a trust domain or an instance."""

    reach: Reach
    name: str

    @property
    def key(self) -> str:
        """The text tasks are found by."""
        return f"spiffe://{self.name}" if self.reach is Reach.TRUST_DOMAIN else self.name

    def __str__(self) -> str:
        return f"{self.reach.replace('_', ' ')} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """What a kill reaches at one moment: how many tasks, the first of them, and what they hold.

    `leases` counts what may be outside, by target; `identities` are the tasks' own.
    """

    tasks: int
    first: tuple[Task, ...]
    leases: Mapping[str, int]
    identities: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """What a kill ended, and how many tasks it names that still live."""

    ended: tuple[TaskId, ...]
    left: int
