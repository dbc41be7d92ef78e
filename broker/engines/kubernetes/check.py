"""What `target check` proves of a namespace: every right we need, and a token made, ended, and refused by the API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from broker.engines.kubernetes.settings import Settings, role_settings
from broker.engines.protocol import Finding, Issued, Lent
from broker.errors import NotYet
from broker.model.lease import Handle
from broker.model.role import Role
from ca.errors import Problem
from ca.runtime.kubernetes import Kubernetes

if TYPE_CHECKING:
    from broker.engines.kubernetes import KubernetesEngine

_SOON = timedelta(seconds=10)
_FIX = "give the broker's service account the Role of docs/engines/kubernetes.md in that namespace"


@dataclass(slots=True)
class Examination:
    """One check of one namespace."""

    engine: KubernetesEngine
    api: Kubernetes
    settings: Settings
    lent: Lent
    found: list[Finding] = field(default_factory=list)

    async def run(self, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
        """Look at everything a grant and an ending need; each probe is ended again."""
        try:
            for verb in ("create", "get", "list", "update", "delete"):
                await self._may(verb, "secrets")
            for account in sorted({role_settings(role).service_account for role in roles}):
                await self._may("create", "serviceaccounts", "token", account)
            reviews = await self._allowed("create", "tokenreviews", group="authentication.k8s.io", namespace=None)
        except Problem as problem:
            fix = "look at `api`, the network, and the broker's own token"
            return [Finding(name="reachable", well=False, detail=str(problem), fix=fix)]
        if all(one.well for one in self.found):
            for role in roles:
                await self._role(role, f"{prefix}probe", reviews=reviews)
        return self.found

    async def _may(self, verb: str, resource: str, below: str = "", name: str = "") -> None:
        said = f"{verb} {resource}" + (f"/{below} of {name}" if below else "")
        well = await self._allowed(verb, resource, below=below, name=name, namespace=self.settings.namespace)
        detail = "allowed" if well else f"not allowed in the namespace `{self.settings.namespace}`"
        self.found.append(Finding(name=said, well=well, detail=detail, fix=None if well else _FIX))

    async def _allowed(self, verb: str, resource: str, *, namespace: str | None, **more: str) -> bool:
        asked = {"verb": verb, "resource": resource, "group": more.get("group", "")}
        asked |= {"namespace": namespace} if namespace else {}
        asked |= {"subresource": more["below"]} if more.get("below") else {}
        asked |= {"name": more["name"]} if more.get("name") else {}
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        body = {**kind, "spec": {"resourceAttributes": asked}}
        answer = await self.api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
        status = answer.get("status")
        return isinstance(status, dict) and status.get("allowed") is True

    async def _role(self, role: Role, name: str, *, reviews: bool) -> None:
        said, handle = f"token of {role.full_name}", self.engine.plan(role, name)
        now = self.lent.clock.now()
        try:
            await self._end(handle)  # what a check that was killed left
            issued = await self.engine.create(handle, role, now + role.ttl, now + _SOON)
            await self._end(handle)
            outlives = reviews and await self._is_taken(issued, role_settings(role).audiences)
        except Problem as problem:
            fix = "look at the service account and its audiences"
            self.found.append(Finding(name=said, well=False, detail=str(problem), fix=fix))
            return
        if outlives:
            detail, fix = "it was taken after what it is bound to was gone", "this cluster does not honour the binding"
            self.found.append(Finding(name=said, well=False, detail=detail, fix=fix))
            return
        how = "refused by TokenReview" if reviews else "that it is refused was not tried: we may not ask TokenReview"
        self.found.append(Finding(name=said, well=True, detail=f"given, ended; {how}"))

    async def _end(self, handle: Handle) -> None:
        """The probe's token was shown to nobody, so nobody remembers it."""
        try:
            await self.engine.end_access(handle)
        except NotYet:
            if not await self.engine.has_ended(handle):
                raise
        await self.engine.clean_up(handle)

    async def _is_taken(self, issued: Issued, audiences: Sequence[str]) -> bool:
        """Asked only after the end: an API server that never saw it has nothing to remember."""
        spec = {"token": issued.secret["token"].reveal(), **({"audiences": list(audiences)} if audiences else {})}
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        answer = await self.api.post("/apis/authentication.k8s.io/v1/tokenreviews", {**kind, "spec": spec})
        status = answer.get("status")
        return not isinstance(status, dict) or status.get("authenticated", False) is not False
