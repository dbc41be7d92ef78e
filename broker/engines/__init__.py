"""The kinds of target, by name. Adding one: a file, a line here, a page in docs/engines, an extra in pyproject.toml."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

from ca.errors import Malformed

ENGINES: Mapping[str, str] = {
    "aws": "broker.engines.aws",
    "kubernetes": "broker.engines.kubernetes",
    "mysql": "broker.engines.mysql",
    "oauth": "broker.engines.oauth",
    "postgres": "broker.engines.postgres",
    "rabbitmq": "broker.engines.rabbitmq",
    "redis": "broker.engines.redis",
    "ssh": "broker.engines.ssh",
    "static": "broker.engines.static",
    "svid": "broker.engines.svid",
}
"""Kind → module. A module has `Settings` (frozen, with its `kind`), `RoleSettings` and `open_engine(settings, lent)`.

It can be imported without its driver: the file that talks to the target is imported by `open_engine`.
"""

INTERNAL = frozenset({"svid"})
"""Kinds no operator configures."""


def load(kind: str) -> ModuleType:
    """The module of one kind, imported on first use so that an unused driver need not be there.

    Raises:
        Malformed: there is no such kind.
    """
    if kind not in ENGINES:
        raise Malformed(f"unknown kind of target `{kind[:40]}`, expected one of `{'`, `'.join(sorted(ENGINES))}`")
    return import_module(ENGINES[kind])
