"""How a process is recognised: the visible table of sources, loaded by name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

WORKLOAD_SOURCES = {
    "unix": "attestor.methods.workload.unix",
    "systemd": "attestor.methods.workload.systemd",
    "k8s": "attestor.methods.workload.k8s",
}


def load(name: str) -> ModuleType:
    """The module of the source called `name`; a name that isn't in the table is a KeyError."""
    return import_module(WORKLOAD_SOURCES[name])
