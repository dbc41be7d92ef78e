"""`POST /v1/attest` of a whole server, over TLS, with a cluster's API behind it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.client.admin import AdminClient
from attestor.methods.platform.cluster import ClusterSettings
from attestor.server.direct_api import BURST
from attestor.server.serve import Server, serve
from attestor.server.settings import Listen, ServerSettings
from ca.runtime.clock import Clock, SystemClock
from ca.runtime.document import BadSettings
from ca.runtime.process import Readiness
from ca.runtime.settings import loads
from ca.spiffe import jwtsvid
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.id import TrustDomain
from ca.spiffe.x509svid import verify
from ca.tls import client_context
from fakes.clock import ManualClock
from fakes.direct_parts import RULES, new_key, request
from fakes.kubernetes import FakeCluster, cluster
from fakes.node_client import pinned, server_settings


@asynccontextmanager
async def running(folder: Path, clock: Clock | None = None) -> AsyncIterator[tuple[FakeCluster, Server]]:
    """A server that takes pods of the cluster `prod`, for at most a minute."""
    (folder / "rules.yaml").write_text(RULES)
    async with asyncio.timeout(60), cluster(folder / "prod") as api:
        clusters = (ClusterSettings(name="prod", api=api.settings),)
        settings = server_settings(folder, clusters=clusters, direct=True, public=Listen())
        async with serve(settings, clock or SystemClock(), Readiness()) as server:
            yield api, server


async def attest(server: Server, body: Any, *, raw: bytes | None = None) -> tuple[int, Any]:
    """Status and answer."""
    assert server.public_address is not None
    host, port = server.public_address
    context = client_context(None, pinned(server.root_key_hash), on_refusal=lambda _: None)
    async with aiohttp.ClientSession() as session:
        url, headers = f"https://{host}:{port}/v1/attest", {"Content-Type": "application/json"}
        sent: dict[str, Any] = {"data": raw, "headers": headers} if raw is not None else {"json": body}
        async with session.post(url, ssl=context, **sent) as response:
            return response.status, await response.json(content_type=None)


def body(token: str, key: ec.EllipticCurvePrivateKey, **changes: Any) -> dict[str, Any]:
    """What a pod sends."""
    csr = base64.b64encode(request(key)).decode()
    return {"method": "k8s_token", "platform": "prod", "token": token, "csr": csr, **changes}


async def test_a_pod_gets_its_svids(tmp_path: Path) -> None:
    """X.509 and JWT verify against the bundle of the same answer."""
    async with running(tmp_path) as (api, server):
        token = api.token(api.add_pod("shop", "cart-0", node="n", account="cart"), ["sojourn"])
        status, answer = await attest(server, body(token, new_key(), audience=["orders"]))
        assert status == 200
        domain = TrustDomain.parse(answer["trust_domain"])
        bundles = BundleSet.of(Bundle.from_jwks(domain, json.dumps(answer["bundle"]).encode()))
        first = answer["svids"][0]
        chain = [base64.b64decode("".join(one.split("-----")[2].split())) for one in _pems(first["x509_svid"])]
        now = SystemClock().now()
        peer = verify(chain, bundles, now)
        assert (str(peer.id), peer.instance) == ("spiffe://example.org/shop/cart", answer["instance"])
        assert jwtsvid.verify(first["jwt_svid"], "orders", bundles, now).id == peer.id


def _pems(text: str) -> list[str]:
    end = "-----END CERTIFICATE-----"
    return [one + end for one in text.split(end) if one.strip()]


async def test_errors_are_problems(tmp_path: Path) -> None:
    """By status and code; a token is in none of them."""
    async with running(tmp_path) as (api, server):
        pod = api.add_pod("shop", "cart-0", node="n", account="cart")
        token, key = api.token(pod, ["sojourn"]), new_key()
        for wrong, status, code in (
            (body(api.token(pod, ["other"]), key), 401, "not-proven"),
            (body(token, key, platform="other"), 401, "not-proven"),
            (body(token, key, spiffe_id="spiffe://example.org/any"), 403, "not-entitled"),
            (body(token, key, spiffe_id="x"), 400, "malformed"),
            (body(token, key, csr="?"), 400, "malformed"),
            (body(token, key, csr="AAAA"), 400, "malformed"),
            (body(token, key, method="password"), 400, "invalid"),
            (body(token, key, more=1), 400, "invalid"),
            (body("x" * 20_000, key), 400, "invalid"),
            ([], 400, "invalid"),
        ):
            got, answer = await attest(server, wrong)
            assert (got, answer["code"]) == (status, code)
            assert token not in str(answer)
        status, answer = await attest(server, None, raw=b"{" + b" " * 60_000)
        assert (status, answer["code"]) == (413, "too-large")
        api.status = 503
        status, answer = await attest(server, body(token, key))
        assert (status, answer["retryable"]) == (503, True)
        asked = {"what": "token", "outcome": "failed"}
        assert server._parts.metrics.value("sojourn_platform_requests_total", **asked) == 1


async def test_operators_are_told_of_a_copied_token(tmp_path: Path) -> None:
    """At their own socket."""
    async with running(tmp_path) as (api, server), AdminClient(server.admin_socket) as admin:
        token = api.token(api.add_pod("shop", "cart-0", node="n", account="cart"), ["sojourn"])
        assert [(await attest(server, body(token, new_key())))[0] for _ in range(2)] == [200, 401]
        (risk,) = (await admin.get("/v1/risks"))["risks"]
        assert (risk["kind"], risk["subject"].rpartition("/")[0]) == ("second-key", "k8s_token/prod/shop/cart-0")
        assert (await admin.get("/v1/nodes"))["nodes"] == []


async def test_strangers_have_only_so_many_tries(tmp_path: Path) -> None:
    """And then cost the cluster nothing."""
    async with running(tmp_path, ManualClock(SystemClock().now())) as (api, server):
        token = api.token(api.add_pod("shop", "cart-0", node="n"), ["other"])
        statuses = [(await attest(server, body(token, new_key())))[0] for _ in range(BURST + 5)]
        assert statuses == [401] * BURST + [429] * 5
        assert api.requests.count(("POST", "/apis/authentication.k8s.io/v1/tokenreviews")) == BURST


@pytest.mark.parametrize(
    "text",
    [
        "direct: true",
        "direct: true\npublic: {port: 0}",
        "direct: true\nclusters: [{name: a}]",
        "clusters: [{name: a}, {name: a}]",
        "node_methods: {k8s_psat: {}}\nclusters: [{name: a}]",
        "node_methods: {oidc: {issuers: [x]}}",
    ],
)
def test_settings_that_can_t_be_meant_are_refused(tmp_path: Path, text: str) -> None:
    """At the start."""
    whole = f"trust_domain: example.org\nadmin_socket: {tmp_path}/a\ndatabase: sqlite:{tmp_path}/d\n{text}"
    with pytest.raises(BadSettings):
        loads(whole, "server.yaml", ServerSettings)


async def test_no_token_rests_in_the_store(tmp_path: Path) -> None:
    """Nor in what is said of one."""
    async with running(tmp_path) as (api, server):
        token = api.token(api.add_pod("shop", "cart-0", node="n", account="cart"), ["sojourn"])
        assert (await attest(server, body(token, new_key())))[0] == 200
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("server.db*"))
        assert b"k8s_token/prod/shop/cart-0" in stored
        assert token.rpartition(".")[2].encode() not in stored
