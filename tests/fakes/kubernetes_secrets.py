"""A Kubernetes API server that keeps Secrets and answers TokenRequest for service accounts, bound as the real does.

    async with serving(LendingCluster(folder, now)) as api:
        api.accounts.add(("shop", "reader"))

By recorded facts of the real one: a POST of a name that is there is answered 409 `AlreadyExists`; a DELETE whose
precondition names another uid 409 `Conflict`; lists come in pages by `limit` and `continue`; a TokenRequest whose bound
object is gone 404, of another uid 409; fewer than 600 seconds 422; a token whose Secret is gone is invalid from then
on, except at a server that has seen it within `remembers` (`TokenSuccessCacheTTL`, ten seconds there).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from joserfc.errors import JoseError

from fakes.kubernetes import ISSUER, OWN_AUDIENCE, FakeCluster

Key = tuple[str, str]
_FOLDER = "/api/v1/namespaces/{ns}/secrets"


class LendingCluster(FakeCluster):
    """See the module."""

    def __init__(self, folder: Path, now: Callable[[], datetime]) -> None:
        super().__init__(folder, now, "ES256")
        self.secrets: dict[Key, dict[str, Any]] = {}
        self.accounts: set[Key] = set()
        self.forbidden: set[tuple[str, str]] = set()
        """Verb and resource our account may not use."""
        self.remembers = timedelta(0)
        # what is wrong
        self.failing: dict[str, int] = {}
        """Method -> status of the next answer; above 1000 the deed is done first and `status - 1000` answered."""
        self.claims: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        self.token_answer: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.finalizers = False
        self.seen: dict[str, datetime] = {}

    def routes(self) -> list[web.RouteDef]:
        """Those of the other too."""
        return [
            *super().routes(),
            web.post(_FOLDER, self._create),
            web.get(_FOLDER, self._list),
            web.get(_FOLDER + "/{name}", self._get),
            web.put(_FOLDER + "/{name}", self._replace),
            web.delete(_FOLDER + "/{name}", self._delete),
            web.post("/api/v1/namespaces/{ns}/serviceaccounts/{name}/token", self._token_request),
            web.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self._access_review),
        ]

    def authenticates(self, token: str, audiences: list[str]) -> bool:
        """What a TokenReview would say."""
        return bool(self._reviewed(token, audiences)["authenticated"])

    async def _create(self, request: web.Request) -> web.Response:
        secret = await request.json()
        key = (request.match_info["ns"], secret["metadata"]["name"])
        if key in self.secrets:
            return _status(409, "AlreadyExists")
        meta = {**secret["metadata"], "namespace": key[0], "uid": str(uuid.uuid4()), "resourceVersion": self._next()}

        def deed() -> web.Response:
            self.secrets[key] = {**secret, "metadata": meta}
            return web.json_response(self.secrets[key], status=201)

        return self._done("POST", deed)

    async def _get(self, request: web.Request) -> web.Response:
        found = self.secrets.get(_key(request))
        return self._done("GET", lambda: web.json_response(found) if found else _status(404, "NotFound"))

    async def _list(self, request: web.Request) -> web.Response:
        wanted = [one.partition("=") for one in request.query.get("labelSelector", "").split(",") if one]
        found = [
            one
            for (namespace, _), one in sorted(self.secrets.items())
            if namespace == request.match_info["ns"] and _matches(one, wanted)
        ]
        begin, most = int(request.query.get("continue", "0")), min(int(request.query.get("limit", "500")), 5)
        more = str(begin + most) if begin + most < len(found) else ""
        meta = {"resourceVersion": self._next(), "continue": more}
        answer = {"kind": "SecretList", "apiVersion": "v1", "metadata": meta, "items": found[begin : begin + most]}
        return self._done("GET", lambda: web.json_response(answer))

    async def _replace(self, request: web.Request) -> web.Response:
        secret, key = await request.json(), _key(request)
        old = self.secrets.get(key)
        if old is None:
            return _status(404, "NotFound")
        if secret["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
            return _status(409, "Conflict")
        self.secrets[key] = {**secret, "metadata": {**secret["metadata"], "resourceVersion": self._next()}}
        return web.json_response(self.secrets[key])

    async def _delete(self, request: web.Request) -> web.Response:
        body, key = await request.json(), _key(request)
        old = self.secrets.get(key)
        if old is None:
            return _status(404, "NotFound")
        if body.get("preconditions", {}).get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
            return _status(409, "Conflict")

        def deed() -> web.Response:
            if self.finalizers:
                old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            else:
                del self.secrets[key]
            return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

        return self._done("DELETE", deed)

    async def _token_request(self, request: web.Request) -> web.Response:
        key, body = _key(request), await request.json()
        spec, now = body["spec"], self._now()
        bound = spec.get("boundObjectRef")
        secret = None if bound is None else self.secrets.get((key[0], bound["name"]))
        if key not in self.accounts or (bound is not None and secret is None):
            return _status(404, "NotFound")
        if secret is not None and bound is not None and secret["metadata"]["uid"] != bound["uid"]:
            return _status(409, "Conflict")
        if spec["expirationSeconds"] < 600:
            return _status(422, "Invalid")
        end = now + timedelta(seconds=spec["expirationSeconds"])
        private: dict[str, Any] = {"namespace": key[0], "serviceaccount": {"name": key[1], "uid": "u"}}
        if bound is not None:
            private["secret"] = {"name": bound["name"], "uid": bound["uid"]}
        claims = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{key[0]}:{key[1]}",
            "aud": spec.get("audiences") or [OWN_AUDIENCE],
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int(end.timestamp()),
            "jti": str(uuid.uuid4()),
            "kubernetes.io": private,
        }
        status = {"token": self.signer.sign(self.claims(claims)), "expirationTimestamp": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
        answer = self.token_answer({**body, "status": status})
        return self._done("TOKEN", lambda: web.json_response(answer, status=201))

    async def _access_review(self, request: web.Request) -> web.Response:
        body = await request.json()
        asked = body["spec"]["resourceAttributes"]
        resource = asked["resource"] + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        status = {"allowed": (asked["verb"], resource) not in self.forbidden}
        return web.json_response({**body, "status": status}, status=201)

    def _reviewed(self, token: str, audiences: list[str]) -> dict[str, Any]:
        try:
            claims = self.signer.verify(token)
        except (JoseError, ValueError):
            return {"authenticated": False, "error": "invalid bearer token"}
        bound = claims["kubernetes.io"].get("secret")
        if bound is None:
            return super()._reviewed(token, audiences)
        now = self._now()
        if claims["exp"] <= now.timestamp() or not set(audiences) & set(claims["aud"]):
            return {"authenticated": False, "error": "invalid bearer token"}
        secret = self.secrets.get((claims["kubernetes.io"]["namespace"], bound["name"]))
        good = secret is not None and secret["metadata"]["uid"] == bound["uid"]
        seen = self.seen.get(token)
        if not good and (seen is None or now >= seen + self.remembers):
            return {"authenticated": False, "error": "service account token has been invalidated"}
        if good:
            self.seen[token] = now
        return {"authenticated": True, "user": {"username": claims["sub"]}, "audiences": audiences}

    def _done(self, method: str, deed: Callable[[], web.Response]) -> web.Response:
        """The deed and its answer, or a failure in either way."""
        status = self.failing.pop(method, None)
        if status is None:
            return deed()
        if status > 1000:
            deed()
        return _status(status % 1000, "InternalError")

    def _next(self) -> str:
        self._version += 1
        return str(self._version)


def _key(request: web.Request) -> Key:
    return request.match_info["ns"], request.match_info["name"]


def _matches(secret: dict[str, Any], wanted: list[tuple[str, str, str]]) -> bool:
    labels = secret["metadata"].get("labels") or {}
    return all(labels.get(name) == value if equal else name in labels for name, equal, value in wanted)


def _status(status: int, reason: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}
    return web.Response(text=json.dumps(body), status=status, content_type="application/json")
