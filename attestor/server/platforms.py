"""The foreign authorities a server asks: clusters opened, and the verifiers of node methods made of the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from attestor.methods.node import k8s_psat
from attestor.methods.platform.cluster import Cluster
from attestor.server.admission import MakeVerifier
from attestor.server.pods import PodView
from attestor.server.settings import ServerSettings
from ca.runtime.clock import Clock
from ca.runtime.kubernetes import Kubernetes
from ca.runtime.process import background

RETRY = 5.0
"""Seconds after which a broken watch is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platforms:
    """What was opened."""

    clusters: Mapping[str, Cluster]
    verifiers: Mapping[str, MakeVerifier]
    pods: PodView


@asynccontextmanager
async def open_platforms(settings: ServerSettings, clock: Clock) -> AsyncIterator[Platforms]:
    """Connections to every platform the settings name, while the block runs. Raises Malformed."""
    async with AsyncExitStack() as stack:
        clusters = {
            one.name: Cluster(one, await stack.enter_async_context(Kubernetes(one.api))) for one in settings.clusters
        }
        pods = PodView(clusters, clock, trust_node_agents=settings.trust_node_agents)
        for one in clusters.values():
            if one.settings.watch:
                follow = background(f"pods of {one.name}", partial(pods.follow, one), every=RETRY, clock=clock)
                await stack.enter_async_context(follow)
        yield Platforms(clusters=clusters, verifiers=_verifiers(settings, clusters), pods=pods)


def _verifiers(settings: ServerSettings, clusters: Mapping[str, Cluster]) -> dict[str, MakeVerifier]:
    """One for each method of the settings; join tokens are always there."""
    methods, made = settings.node_methods, dict[str, MakeVerifier]()
    if methods.k8s_psat is not None:
        made[k8s_psat.METHOD] = partial(k8s_psat.Verifier, methods.k8s_psat, clusters)
    return made
