"""One life of a broker: what both sides must know of it, and the files they tell each other in."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ca.runtime.clock import SystemClock


@dataclass(frozen=True, kw_only=True)
class Case:
    """One life of a broker: which story, on which store and server, armed with which points."""

    story: str
    folder: str
    room: dict[str, Any]
    superuser: dict[str, Any]
    points: str = ""
    later: str = ""
    """What is armed once it has settled, by a story that does so."""
    seed: int = 0
    database: str = ""
    """The store's address, when it is no file."""
    targets: dict[str, Any] = field(default_factory=dict)
    """By name what is `said` of a target, and where it is `at`, if anywhere: the broker reaches it through a tap at
    `@PORT@`, which knows when it is `tls`. None: those of a PostgreSQL room, without taps."""
    clock: str = ""
    """The file of a clock the targets go by too, when they leap with the broker's."""
    lasting: bool = False
    """Whether nothing that was handed over can be taken back: as the oracle's eyes say it."""
    lingers: bool = False
    """Whether a name may be held from one sweep to the next: as they say it too."""
    environment: dict[str, str] = field(default_factory=dict)
    """What those settings refer to."""
    starved: bool = False
    """Whether the disk is full from the start."""
    losing: bool = False
    """Whether its disk loses what was not synced (`synced.py`)."""
    deadline: float = 10.0
    """Seconds a call to the target is waited for, and after which a create is refused there."""

    @property
    def store(self) -> Path:
        return Path(self.folder, "store")

    @property
    def synced(self) -> Path:
        """What a disk that loses power has of the store."""
        return Path(self.folder, "synced")

    @property
    def marker(self) -> Path:
        """The points that fired."""
        return Path(self.folder, "marker")

    @property
    def notes(self) -> Path:
        """What the story tells the world outside: each secret that was handed over, what it planted."""
        return Path(self.folder, "notes")

    @property
    def ahead(self) -> Path:
        """How far the clock has leapt."""
        return Path(self.clock or Path(self.folder, "ahead"))

    @property
    def registry(self) -> Path:
        """The identities of tasks that are really there."""
        return Path(self.folder, "registry.json")

    @property
    def ended(self) -> Path:
        """The processes that are dead, one a line."""
        return Path(self.folder, "ended")

    @property
    def failure(self) -> Path:
        """Why a story broke off, if it did not end as it should."""
        return Path(self.folder, "failure")


class LeapingClock(SystemClock):
    """The machine's clock, some seconds ahead; the next life, or one beside it, goes on from where the last one was."""

    def __init__(self, kept: Path) -> None:
        self._kept, self._seen, self._ahead = kept, 0, 0.0
        super().__init__(
            wall=lambda: time.clock_gettime(time.CLOCK_REALTIME) + self.ahead,
            boot=lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + self.ahead,
        )

    @property
    def ahead(self) -> float:
        """Whoever leapt last."""
        try:
            seen = self._kept.stat().st_mtime_ns
        except FileNotFoundError:
            return self._ahead
        if seen != self._seen:
            self._seen, self._ahead = seen, float(self._kept.read_text())
        return self._ahead

    def leap(self, seconds: float) -> None:
        """Let time pass, without waiting for it."""
        draft = self._kept.with_suffix(".draft")
        draft.write_text(str(self.ahead + seconds))
        draft.rename(self._kept)
