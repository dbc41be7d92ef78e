"""One Kubernetes cluster as a source of proof: a token reviewed, its pod read back, its node looked up.

A TokenReview is asked for every time: it fails once the pod is gone, which a signature checked here would not show. The
API must repeat the audience it was asked about, or an authenticator that knows nothing of audiences would have said yes
to a token that is meant for somebody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from attestor.errors import NotProven
from attestor.methods.platform.pods import (
    ClusterNode,
    Pod,
    parse_uid,
    read_node,
    read_pod,
    service_account,
)
from attestor.methods.platform.protocol import LONGEST_TOKEN, Count, counted, short, uncounted
from ca.errors import Malformed, NotFound, Unavailable
from ca.runtime.kubernetes import Kubernetes, KubernetesSettings, segment
from ca.runtime.settings import Settings, parsed_by

_EXTRA = "authentication.kubernetes.io/"
_NAME = "abcdefghijklmnopqrstuvwxyz0123456789-"


def _name(text: str) -> str:
    if not 0 < len(text) <= 20 or not set(text) <= set(_NAME) or text.startswith("-") or text.endswith("-"):
        raise Malformed("a cluster's name must be up to 20 of `a-z`, `0-9`, `-` and begin and end with none of `-`")
    return text


def _account(text: str) -> str:
    namespace, slash, name = text.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise Malformed("a service account is written `<namespace>/<name>`")
    return text


Account = Annotated[str, parsed_by(_account)]
Label = Annotated[str, Field(min_length=1, max_length=317)]


class ClusterSettings(Settings):
    """One cluster the attestor server asks."""

    name: Annotated[str, parsed_by(_name)]
    api: KubernetesSettings = KubernetesSettings()
    node_audience: Annotated[str, Field(min_length=1)] = "sojourn-node"
    """For which the tokens of node agents are made."""
    pod_audience: Annotated[str, Field(min_length=1)] = "sojourn"
    """For which the tokens of pods that attest without a node agent are made."""
    node_agents: tuple[Account, ...] = ()
    """Service accounts that may speak for a node; none: no node of this cluster attests by its token."""
    pod_labels: tuple[Label, ...] = ()
    node_labels: tuple[Label, ...] = ()
    """Keys of labels that become selectors of a node."""
    watch: bool = True
    """Whether pods are watched (RBAC `pods: list, watch`), or only read one by one (`get`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A token the API vouches for."""

    namespace: str
    account: str
    pod_name: str
    pod_uid: str
    credential: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster and its API."""

    settings: ClusterSettings
    api: Kubernetes = field(repr=False)
    count: Count = field(default=uncounted, repr=False)

    @property
    def name(self) -> str:
        """By which settings, selectors and node agents know it."""
        return self.settings.name

    async def review(self, token: str, audience: str) -> Reviewed:
        """Whose the token is. Raises NotProven, Unavailable."""
        if not 0 < len(token) <= LONGEST_TOKEN or not token.isascii() or not token.isprintable():
            raise NotProven("this is not a token of a Kubernetes service account")
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        with counted(self.count, "token"):
            answer = await self.api.post("/apis/authentication.k8s.io/v1/tokenreviews", body)
        status = answer.get("status")
        if not isinstance(status, dict):
            raise Unavailable("the Kubernetes API answers a review without a status")
        if status.get("authenticated") is not True or status.get("error"):
            raise NotProven(f"the cluster `{self.name}` does not vouch for this token")
        echoed = status.get("audiences")
        if not isinstance(echoed, list) or audience not in echoed:
            raise NotProven(f"the cluster `{self.name}` does not say that this token is meant for `{audience}`")
        return _reviewed(status.get("user"))

    async def pod(self, namespace: str, name: str) -> Pod | None:
        """The pod of that name; None when there is none. Raises Malformed, Unavailable."""
        path = f"/api/v1/namespaces/{segment(namespace)}/pods/{segment(name)}"
        try:
            with counted(self.count, "pod"):
                return read_pod(await self.api.get(path))
        except NotFound:
            return None

    async def pod_of(self, reviewed: Reviewed) -> Pod:
        """The very pod a token was made for, and that it runs. Raises NotProven, Unavailable."""
        try:
            pod = await self.pod(reviewed.namespace, reviewed.pod_name)
        except Malformed as error:
            raise NotProven("the token names no pod") from error
        if pod is None or pod.uid != reviewed.pod_uid:
            raise NotProven("the pod this token was made for is gone")
        if pod.account != reviewed.account:
            raise NotProven("the pod this token was made for runs under another service account")
        if pod.ending or not pod.node:
            raise NotProven("the pod this token was made for does not run, or is about to end")
        return pod

    async def node(self, name: str) -> ClusterNode:
        """A machine. Raises NotProven, Unavailable."""
        try:
            path = f"/api/v1/nodes/{segment(name)}"
        except Malformed as error:
            raise NotProven("the node this pod runs on has no name of a node") from error
        try:
            with counted(self.count, "node"):
                return read_node(await self.api.get(path))
        except NotFound as error:
            raise NotProven("the node this pod runs on is not known to its cluster") from error


def _reviewed(user: Any) -> Reviewed:
    if not isinstance(user, Mapping):
        raise NotProven("the token's review names nobody")
    namespace, account = service_account(user.get("username"))
    extra = user.get("extra")
    if not isinstance(extra, Mapping):
        raise NotProven("the token is not bound to a pod")
    try:
        uid = parse_uid(_single(extra, "pod-uid"))
    except Malformed as error:
        raise NotProven("the token is bound to no pod that has a uid") from error
    credential = extra.get(f"{_EXTRA}credential-id")
    shown = short(credential[0]) if isinstance(credential, list) and len(credential) == 1 else ""
    return Reviewed(
        namespace=namespace,
        account=account,
        pod_name=_single(extra, "pod-name"),
        pod_uid=uid,
        credential=shown,
    )


def _single(extra: Mapping[str, Any], name: str) -> str:
    values = extra.get(_EXTRA + name)
    if not isinstance(values, list) or len(values) != 1 or not isinstance(values[0], str):
        raise NotProven(f"the token's review does not name exactly one `{name}`")
    return values[0]
