"""The REST surface: one table of routes. A handler parses, calls `service`, renders; nothing else."""

from __future__ import annotations

from broker.api import (
    audit,
    credentials,
    decisions,
    disowning,
    events,
    kills,
    leases,
    operators,
    targets,
    tasks,
    values,
)
from ca.runtime.web import Route

ROUTES: tuple[Route, ...] = (
    *tasks.ROUTES,
    *credentials.ROUTES,
    *leases.ROUTES,
    *disowning.ROUTES,
    *kills.ROUTES,
    *decisions.ROUTES,
    *events.ROUTES,
    *audit.ROUTES,
    *operators.ROUTES,
    *targets.ROUTES,
    *values.ROUTES,
)
