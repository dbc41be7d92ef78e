"""The foreign authorities a server asks: clusters opened, and the verifiers of node methods made of the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from attestor.methods.node import k8s_psat, tpm, x509pop
from attestor.methods.node import oidc as node_oidc
from attestor.methods.platform import k8s_token, oidc
from attestor.methods.platform.cluster import Cluster
from attestor.methods.platform.keyset import LARGEST, KeySet
from attestor.methods.platform.oidc import IssuerSettings
from attestor.methods.platform.protocol import Count, Platform
from attestor.server.admission import MakeVerifier
from attestor.server.node_checks import Check
from attestor.server.pods import PodView
from attestor.server.settings import ServerSettings
from attestor.server.store.nodes import Node
from ca.runtime.clock import Clock
from ca.runtime.fetch import Fetcher, Trust
from ca.runtime.kubernetes import Kubernetes
from ca.runtime.metrics import Metrics
from ca.runtime.process import background

RETRY = 5.0
"""Seconds after which a broken watch is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platforms:
    """What was opened."""

    clusters: Mapping[str, Cluster]
    verifiers: Mapping[str, MakeVerifier]
    pods: PodView
    direct: Mapping[tuple[str, str], Platform]
    checks: Mapping[str, Check]


@asynccontextmanager
async def open_platforms(settings: ServerSettings, clock: Clock, metrics: Metrics) -> AsyncIterator[Platforms]:
    """Connections to every platform the settings name, while the block runs. Raises Malformed."""

    def count(what: str, outcome: str) -> None:
        metrics.count("sojourn_platform_requests_total", what=what, outcome=outcome)

    async with AsyncExitStack() as stack:
        clusters = {
            one.name: Cluster(one, await stack.enter_async_context(Kubernetes(one.api)), count)
            for one in settings.clusters
        }
        pods = PodView(clusters, clock, trust_node_agents=settings.trust_node_agents)
        for one in clusters.values():
            if one.settings.watch:
                follow = background(f"pods of {one.name}", partial(pods.follow, one), every=RETRY, clock=clock)
                await stack.enter_async_context(follow)
        issuers = {one.name: await stack.enter_async_context(_issuer(one, clock, count)) for one in settings.issuers}
        direct: dict[tuple[str, str], Platform] = {(oidc.METHOD, name): one for name, one in issuers.items()}
        direct |= {(k8s_token.METHOD, name): k8s_token.Platform(one, pods.missing) for name, one in clusters.items()}
        yield Platforms(
            clusters=clusters,
            verifiers=_verifiers(settings, clusters, issuers),
            pods=pods,
            direct=direct if settings.direct else {},
            checks=_checks(settings, clusters),
        )


@asynccontextmanager
async def _issuer(settings: IssuerSettings, clock: Clock, count: Count) -> AsyncIterator[oidc.Platform]:
    """An issuer's keys are fetched when they are first needed."""
    trust = Trust(ca_file=settings.ca_file)
    async with Fetcher(trust, limit=LARGEST, redirects=2, public_only=not settings.private) as fetcher:
        yield oidc.Platform(settings, KeySet(settings.issuer, fetcher, clock, count))


def _checks(settings: ServerSettings, clusters: Mapping[str, Cluster]) -> dict[str, Check]:
    """Whether nodes are still what they proved, where somebody can be asked or a time is set."""
    methods = settings.node_methods

    async def machine(node: Node, now: datetime) -> str:  # noqa: ARG001 - the signature of a check
        return await k8s_psat.departed(clusters, node.selectors)

    async def job(node: Node, now: datetime) -> str:
        assert methods.oidc is not None
        return "its job began too long ago" if now - node.admitted_at > methods.oidc.longest else ""

    async def certificate(node: Node, now: datetime) -> str:
        return x509pop.departed(node.selectors, now)

    async def module(node: Node, now: datetime) -> str:  # noqa: ARG001 - the signature of a check
        assert methods.tpm is not None
        return tpm.departed(methods.tpm, node.selectors)

    found: dict[str, Check] = {k8s_psat.METHOD: machine, x509pop.METHOD: certificate}
    found |= {oidc.METHOD: job} if methods.oidc is not None else {}
    return found | ({tpm.METHOD: module} if methods.tpm is not None else {})


def _verifiers(
    settings: ServerSettings, clusters: Mapping[str, Cluster], issuers: Mapping[str, oidc.Platform]
) -> dict[str, MakeVerifier]:
    """One for each method of the settings; join tokens are always there."""
    methods, made = settings.node_methods, dict[str, MakeVerifier]()
    if methods.k8s_psat is not None:
        made[k8s_psat.METHOD] = partial(k8s_psat.Verifier, methods.k8s_psat, clusters)
    if methods.oidc is not None:
        made[oidc.METHOD] = partial(node_oidc.Verifier, methods.oidc, issuers)
    if methods.tpm is not None:
        made[tpm.METHOD] = partial(tpm.Verifier, methods.tpm)
    if methods.x509pop is not None:
        made[x509pop.METHOD] = partial(x509pop.Verifier, methods.x509pop)
    return made
