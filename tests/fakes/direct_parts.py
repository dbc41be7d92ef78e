"""Direct attestation on a real store and authority, with a real cluster's API and a real issuer behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.methods.platform import k8s_token, oidc
from attestor.server.direct import Asked, Direct, Issued
from attestor.server.pods import PodView
from attestor.server.risks import Risks
from attestor.server.store.direct import DirectInstance
from attestor.server.token_keys import TokenKeys
from ca.runtime.metrics import Metrics
from fakes import issuers
from fakes.attestor_parts import Parts, parts
from fakes.clock import ManualClock
from fakes.clusters import POD_AUDIENCE, known
from fakes.kubernetes import FakeCluster

RULES = """
rules:
  - {name: cart, nodes: ["node:direct", "node:cluster:prod"], when: ["k8s:ns:shop", "k8s:sa:cart"],
     spiffe_id: "/{k8s.ns}/{k8s.sa}", strength: pod, audiences: [orders], dns_names: [cart.shop], bind: pod}
  - {name: second, nodes: ["node:method:k8s_token"], when: ["k8s:ns:shop"], spiffe_id: /second, x509_ttl: 1m}
  - {name: any, nodes: ["node:*"], when: ["k8s:ns:shop"], spiffe_id: /any}
  - {name: job, nodes: ["node:direct", "node:issuer:ci"], when: ["oidc:repository:acme/app"], spiffe_id: /job}
  - {name: agents, nodes: ["k8s_psat:cluster:prod"], when: ["k8s:ns:shop"], spiffe_id: /agents}
"""


@dataclass
class DirectParts:
    """All of it."""

    api: FakeCluster
    issuer: issuers.FakeIssuer
    view: PodView
    server: Parts
    direct: Direct
    risks: Risks
    metrics: Metrics

    async def attest(
        self, token: str, key: ec.EllipticCurvePrivateKey | None = None, **changes: Any
    ) -> tuple[DirectInstance, list[Issued]]:
        """As a pod of the cluster does."""
        asked = Asked(
            method="k8s_token", platform="prod", token=token, csr=request(key or new_key()), wanted=None, audience=()
        )
        return await self.direct.attest(replace(asked, **changes), self.server.clock.now())

    async def job(
        self, token: str, key: ec.EllipticCurvePrivateKey | None = None
    ) -> tuple[DirectInstance, list[Issued]]:
        """As a job of the issuer does."""
        return await self.attest(token, key, method="oidc", platform="ci")

    def pod(self, name: str = "cart-0", **changes: Any) -> dict[str, Any]:
        """A pod the first rule is for."""
        return self.api.add_pod("shop", name, **{"node": "worker-1", "account": "cart", **changes})

    def token(self, pod: dict[str, Any], **changes: Any) -> str:
        """What the kubelet projects into it."""
        return self.api.token(pod, [POD_AUDIENCE], **changes)


@asynccontextmanager
async def direct_parts(folder: Path, rules: str = RULES, **settings: Any) -> AsyncIterator[DirectParts]:
    """One server, one cluster `prod`, one issuer `ci`; the time stands still."""
    clock = ManualClock()
    async with (
        known(folder, **settings) as (api, cluster),
        issuers.platform(folder, clock) as (issuer, jobs),
    ):
        api._now = clock.now
        view = PodView({"prod": cluster}, clock)
        async with parts(folder, rules, pods=view, clock=clock) as server:
            metrics = Metrics()
            risks = Risks(server.database, metrics)
            direct = Direct(
                database=server.database,
                leaves=server.leaves,
                rules=server.rules,
                instances=server.instances,
                platforms={
                    (k8s_token.METHOD, "prod"): k8s_token.Platform(cluster, view.missing),
                    (oidc.METHOD, "ci"): jobs,
                },
                token_keys=TokenKeys(server.database, risks),
                metrics=metrics,
                started=clock.now(),
            )
            yield DirectParts(api, issuer, view, server, direct, risks, metrics)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Another one each time."""
    return ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey, names: Sequence[x509.GeneralName] = ()) -> bytes:
    """A certificate request that asks for `names`."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
