"""The server's tables, one file per noun. Every function takes a `Transaction` and is called inside a unit."""

from __future__ import annotations

from importlib.resources import files

MIGRATIONS = files("attestor.server") / "migrations"
