"""How the demo is told: a line per fact, with the milliseconds since its part began, and if it is as promised."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any, TextIO

from ca.runtime.clock import Clock

_GREEN, _RED, _DIM, _BOLD, _RESET = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"


@dataclass(slots=True)
class Timeline:
    """Collects facts and prints each as it happens.

    A fact has to be true for the demo to succeed; `failed` lists those that were not. With `as_json` each line is an
    object of its own: `{"part", "at_ms", "what", "detail", "holds"}`.
    """

    clock: Clock
    as_json: bool = False
    out: TextIO = field(default_factory=lambda: sys.stdout)
    failed: list[str] = field(default_factory=list)
    _begun: float = 0.0
    _part: str = ""

    def part(self, title: str) -> None:
        """Begin a part; its milliseconds count from here."""
        self._begun, self._part = self.clock.boot(), title
        if not self.as_json:
            self._print(f"\n{self._paint(_BOLD, title)}")

    def fact(self, what: str, detail: str = "", *, holds: bool = True) -> None:
        """Tell one fact that was observed now."""
        at = (self.clock.boot() - self._begun) * 1000
        if not holds:
            self.failed.append(f"{self._part}: {what}")
        if self.as_json:
            self._print(json.dumps(self._line(at, what, detail, holds=holds)))
            return
        mark = self._paint(_GREEN, "✓") if holds else self._paint(_RED, "✗")
        self._print(f"{self._paint(_DIM, f'{at:8.1f} ms')}  {mark} {what:<26} {self._paint(_DIM, detail)}".rstrip())

    def say(self, text: str) -> None:
        """A sentence between facts; nothing with `as_json`."""
        if not self.as_json:
            self._print(text)

    def verdict(self) -> bool:
        """Tell whether everything held."""
        held = not self.failed
        if self.as_json:
            self._print(json.dumps({"part": "verdict", "holds": held, "failed": self.failed}))
            return held
        sentence = "Nothing is left: every promise above was checked at the database." if held else "NOT as promised:"
        self._print("\n" + self._paint(_GREEN if held else _RED, sentence))
        for what in self.failed:
            self._print(f"  {what}")
        return held

    def _line(self, at: float, what: str, detail: str, *, holds: bool) -> dict[str, Any]:
        return {"part": self._part, "at_ms": round(at, 1), "what": what, "detail": detail, "holds": holds}

    def _paint(self, colour: str, text: str) -> str:
        wanted = self.out.isatty() and "NO_COLOR" not in os.environ
        return f"{colour}{text}{_RESET}" if wanted else text

    def _print(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()
