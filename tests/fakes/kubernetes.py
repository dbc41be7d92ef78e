"""A Kubernetes API server over real TLS: TokenReview, pods, nodes, and a watch with bookmarks and 410.

    async with cluster(tmp_path) as api:
        api.add_node("node-1")
        pod = api.add_pod("shop", "cart-0", node="node-1")
        token = api.token(pod, ["sojourn"])

It speaks the protocol of the real one; what may go wrong is switched on by attribute.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from joserfc.errors import JoseError

from ca.runtime.clock import SystemClock
from ca.runtime.kubernetes import KubernetesSettings
from fakes.service_accounts import Algorithm, TokenSigner, pod_claims
from fakes.web_pki import WebAuthority

ISSUER = "https://kubernetes.default.svc.cluster.local"
OWN_AUDIENCE = ISSUER
OWN_TOKEN = "the-attestor-servers-own-token"


class FakeCluster:
    """What one cluster is made of, and what is wrong with it."""

    def __init__(self, folder: Path, now: Callable[[], datetime], algorithm: Algorithm) -> None:
        self.folder, self._now = folder, now
        self.signer = TokenSigner(ISSUER, algorithm)
        self.authority = WebAuthority("cluster CA")
        self.pods: dict[tuple[str, str], dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.token_file, self.ca_file = folder / "api-token", folder / "api-ca.pem"
        self.token_file.write_text(OWN_TOKEN)
        self.ca_file.write_bytes(self.authority.pem)
        self.accepted_token = OWN_TOKEN
        self.port = 0
        # what is wrong
        self.status: int | None = None
        self.echo: Callable[[list[str]], list[str] | None] = lambda audiences: audiences
        self.review: Callable[[dict[str, Any]], dict[str, Any]] = lambda status: status
        self.hanging = asyncio.Event()
        self.hanging.set()
        self.watch_status: int | None = None
        # what was asked
        self.requests: list[tuple[str, str]] = []
        self._version = 100
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._oldest = 0
        self._changed = asyncio.Condition()
        self._cut = 0

    @property
    def settings(self) -> KubernetesSettings:
        """How to reach it."""
        return KubernetesSettings(
            server=f"https://127.0.0.1:{self.port}",
            token_file=self.token_file,
            ca_file=self.ca_file,
            deadline=timedelta(seconds=10),
        )

    def add_node(self, name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A machine."""
        meta = {"name": name, "uid": str(uuid.uuid4()), "labels": dict(labels or {}), "resourceVersion": "1"}
        self.nodes[name] = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}, "status": {}}
        return self.nodes[name]

    def add_pod(
        self,
        namespace: str,
        name: str,
        *,
        node: str,
        account: str = "default",
        labels: Mapping[str, str] | None = None,
        containers: Sequence[str] = ("main",),
        owner: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        """A running pod; a new one of the same name replaces the old, with another uid."""
        meta: dict[str, Any] = {
            "namespace": namespace,
            "name": name,
            "uid": str(uuid.uuid4()),
            "labels": dict(labels or {}),
        }
        if owner:
            kind, called = owner
            meta["ownerReferences"] = [
                {"apiVersion": "apps/v1", "kind": kind, "name": called, "uid": "o", "controller": True}
            ]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {
                "serviceAccountName": account,
                "nodeName": node,
                "containers": [{"name": one, "image": f"registry.example/{one}:1"} for one in containers],
            },
            "status": {"phase": "Running", "containerStatuses": [_status(one, self._now()) for one in containers]},
        }
        self._put("ADDED", pod)
        return pod

    def restart(self, pod: dict[str, Any], container: str = "main") -> None:
        """A container of it ends and is started again."""
        for one in pod["status"]["containerStatuses"]:
            if one["name"] == container:
                one.update(_status(container, self._now(), restarts=one["restartCount"] + 1))
        self._put("MODIFIED", pod)

    def mark_deleting(self, pod: dict[str, Any]) -> None:
        """It is told to end, and still runs."""
        pod["metadata"]["deletionTimestamp"] = f"{self._now().astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        self._put("MODIFIED", pod)

    def remove(self, pod: dict[str, Any]) -> None:
        """It is gone."""
        self._put("DELETED", pod)

    def token(self, pod: Mapping[str, Any], audience: Sequence[str], **changes: Any) -> str:
        """A token projected into `pod`; `changes` are claims, None leaves one out."""
        claims = {**pod_claims(ISSUER, pod, audience, self._now()), **changes}
        return self.signer.sign({name: value for name, value in claims.items() if value is not None})

    def compact(self) -> None:
        """Forget what happened: whoever watches from before is told 410."""
        self._oldest = self._version
        self._events.clear()

    async def cut_watches(self) -> None:
        """End every held watch, as a server does after a while."""
        self._cut += 1
        async with self._changed:
            self._changed.notify_all()

    async def stir(self) -> None:
        """Let the watchers see what was put."""
        async with self._changed:
            self._changed.notify_all()

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.post("/apis/authentication.k8s.io/v1/tokenreviews", self._token_review),
            web.get("/api/v1/pods", self._list_pods),
            web.get("/api/v1/namespaces/{ns}/pods/{name}", self._get_pod),
            web.get("/api/v1/nodes/{name}", self._get_node),
        ]

    @web.middleware
    async def gate(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        """Who asks, and whether this server answers today."""
        self.requests.append((request.method, request.path))
        await self.hanging.wait()
        if request.headers.get("Authorization") != f"Bearer {self.accepted_token}":
            return _failure(401)
        if self.status is not None:
            return _failure(self.status) if self.status != 404 else web.Response(text="no such page", status=404)
        response: web.StreamResponse = await handler(request)
        return response

    def _put(self, kind: str, pod: dict[str, Any]) -> None:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._version += 1
        pod["metadata"]["resourceVersion"] = str(self._version)
        if kind == "DELETED":
            self.pods.pop(key, None)
        else:
            self.pods[key] = pod
        self._events.append((self._version, {"type": kind, "object": json.loads(json.dumps(pod))}))

    async def _token_review(self, request: web.Request) -> web.Response:
        body = await request.json()
        spec = body["spec"]
        audiences = spec.get("audiences") or [OWN_AUDIENCE]
        status = self.review(self._reviewed(spec["token"], audiences))
        return web.json_response({**body, "status": status}, status=201)

    def _reviewed(self, token: str, audiences: list[str]) -> dict[str, Any]:
        try:
            claims = self.signer.verify(token)
        except (JoseError, ValueError):
            return {"authenticated": False, "error": "invalid bearer token"}
        shared = [one for one in audiences if one in claims["aud"]]
        bound = claims["kubernetes.io"]["pod"]
        pod = self.pods.get((claims["kubernetes.io"]["namespace"], bound["name"]))
        if claims["iss"] != ISSUER or not shared or claims["exp"] <= self._now().timestamp():
            return {"authenticated": False, "error": "invalid bearer token"}
        if pod is None or pod["metadata"]["uid"] != bound["uid"]:
            return {"authenticated": False, "error": "service account token has been invalidated"}
        extra = {
            "authentication.kubernetes.io/pod-name": [bound["name"]],
            "authentication.kubernetes.io/pod-uid": [bound["uid"]],
            "authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"],
        }
        user = {"username": claims["sub"], "uid": "u", "groups": ["system:serviceaccounts"], "extra": extra}
        status: dict[str, Any] = {"authenticated": True, "user": user}
        echoed = self.echo(shared)
        return status if echoed is None else {**status, "audiences": echoed}

    async def _get_pod(self, request: web.Request) -> web.Response:
        pod = self.pods.get((request.match_info["ns"], request.match_info["name"]))
        return web.json_response(pod) if pod else _failure(404)

    async def _get_node(self, request: web.Request) -> web.Response:
        node = self.nodes.get(request.match_info["name"])
        return web.json_response(node) if node else _failure(404)

    async def _list_pods(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self._watch(request)
        begin = int(request.query.get("continue", "0"))
        end = begin + int(request.query.get("limit", "500"))
        items = list(self.pods.values())
        meta = {"resourceVersion": str(self._version), "continue": str(end) if end < len(items) else ""}
        return web.json_response({"kind": "PodList", "metadata": meta, "items": items[begin:end]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        version, cut = int(request.query["resourceVersion"]), self._cut
        if self.watch_status is not None:
            return _failure(self.watch_status)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if version < self._oldest:
            gone = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        while True:
            for number, event in list(self._events):
                if number > version:
                    await response.write(json.dumps(event).encode() + b"\n")
                    version = number
            mark = {"kind": "Pod", "metadata": {"resourceVersion": str(self._version)}}
            await response.write(json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n")
            if cut != self._cut:
                return response
            async with self._changed:
                await self._changed.wait()


Cluster = TypeVar("Cluster", bound=FakeCluster)


@asynccontextmanager
async def cluster(
    folder: Path, *, now: Callable[[], datetime] | None = None, algorithm: Algorithm = "RS256"
) -> AsyncIterator[FakeCluster]:
    """A cluster on a free port; its token and CA files lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    async with serving(FakeCluster(folder, now or SystemClock().now, algorithm)) as fake:
        yield fake


@asynccontextmanager
async def serving(fake: Cluster) -> AsyncIterator[Cluster]:
    """This one, on a free port."""
    app = web.Application(middlewares=[fake.gate])
    app.add_routes(fake.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=fake.authority.server())
    await site.start()
    fake.port = runner.addresses[0][1]
    try:
        yield fake
    finally:
        fake.hanging.set()
        await fake.cut_watches()
        await runner.cleanup()


def _status(container: str, now: datetime, restarts: int = 0) -> dict[str, Any]:
    digest = f"{abs(hash(container)):064x}"[-64:]
    return {
        "name": container,
        "image": f"registry.example/{container}:1",
        "imageID": f"registry.example/{container}@sha256:{digest}",
        "containerID": f"containerd://{uuid.uuid4().hex}{uuid.uuid4().hex}",
        "restartCount": restarts,
        "state": {"running": {"startedAt": f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}},
    }


def _failure(status: int) -> web.Response:
    reason = "NotFound" if status == 404 else "Other"
    return web.json_response({"kind": "Status", "status": "Failure", "reason": reason, "code": status}, status=status)
