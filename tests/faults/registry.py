"""An attestor server's identities of tasks as a file: it outlives a killed broker, and says what is really there."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from attestor.wire.task_identity import Grant, Granted
from ca.errors import Conflict, Unavailable
from ca.spiffe.id import SpiffeId


@dataclass
class Registry:
    """Names and what became of them; `lost` answers of grants never come, while `down` nobody is there."""

    file: Path
    lost: int = 0
    down: bool = False
    connected: bool = True

    async def grant(self, grant: Grant) -> Granted:
        known = self._read()
        if grant.name in known or grant.task in known.values():
            raise Conflict("it is in the way")
        self._write({**known, grant.name: grant.task})
        if self.lost:
            self.lost -= 1
            raise Unavailable("the answer was lost")
        return Granted(id=SpiffeId.parse(f"spiffe://example.org/task/{grant.task}"), made=True)

    async def withdraw(self, name: str, *, close: bool = False) -> int:  # the closed ones stay, as taken
        known = self._read()
        self._write({**known, name: "-" if close else ""})
        return int(known.get(name, "-") not in {"", "-"})

    async def names(self, prefix: str) -> Sequence[str]:
        return sorted(name for name, task in self._read().items() if name.startswith(prefix) and task != "-")

    async def confirm(self, names: Iterable[str]) -> Sequence[str]:
        known = self._read()
        return [name for name in names if known.get(name, "-") == "-"]

    def _read(self) -> dict[str, str]:
        if self.down:
            raise Unavailable("nobody answers")
        found: dict[str, str] = json.loads(self.file.read_text()) if self.file.exists() else {}
        return found

    def _write(self, known: dict[str, str]) -> None:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit[0] == limit[1]:
            self._replace(json.dumps(known))
        elif (child := os.fork()) == 0:  # the broker's disk is full, and this is another machine's
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit[1], limit[1]))
            self._replace(json.dumps(known))
            os._exit(0)
        else:
            os.waitpid(child, 0)

    def _replace(self, text: str) -> None:
        draft = self.file.with_suffix(".draft")
        draft.write_text(text)
        draft.rename(self.file)
