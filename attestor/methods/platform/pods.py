"""Pods and nodes as the Kubernetes API describes them, and the selectors that come of it.

    k8s:ns:shop  k8s:sa:cart  k8s:pod-name:cart-0  k8s:pod-uid:…  k8s:node-name:worker-3
    k8s:pod-label:app:cart  k8s:pod-owner:StatefulSet:cart  k8s:pod-owner-uid:StatefulSet:…
    k8s:pod-image:registry/cart@sha256:…   of every container · k8s:container-image:… k8s:container-name:…  of one

Images are named by what the runtime pulled and by what the pod asked for; a rule that means one program names the
digest. What the API says in a form that can't be read makes the pod unreadable; half a pod is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from attestor.errors import NotProven
from attestor.selector import Selector, Selectors
from ca.errors import Malformed, Unavailable

KIND = "k8s"
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FAULTS = (KeyError, TypeError, AttributeError, ValueError, OverflowError, Malformed)
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


class Unreadable(Unavailable):
    """The API describes an object in a form that can't be read: the fault of that object alone."""

    code = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container of a pod; `id` is empty until it was started, and another after each restart.

    `started_at` is None unless it runs.
    """

    name: str
    image: str
    image_id: str
    id: str
    restarts: int
    started_at: datetime | None

    @property
    def images(self) -> frozenset[str]:
        """By which names its image is known."""
        return frozenset(one for one in (self.image, self.image_id) if one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod."""

    namespace: str
    name: str
    uid: str
    account: str
    node: str
    labels: Mapping[str, str]
    owners: tuple[tuple[str, str, str], ...]  # kind, name, uid
    containers: tuple[Container, ...]
    open_to_host: bool
    """It sees the processes of its machine, or holds a container that may do anything there."""
    ending: bool
    """Told to end, or over: it gets nothing new."""

    @property
    def running(self) -> Mapping[str, datetime]:
        """What runs in it: a name for each run of a container, which no other run ever has, and when it began."""
        return {
            f"{one.name} {one.id} {one.restarts}": one.started_at
            for one in self.containers
            if one.id and one.started_at is not None
        }

    def container(self, name: str) -> Container | None:
        """The one of that name."""
        return next((one for one in self.containers if one.name == name), None)

    def selectors(self, container: str | None = None) -> Selectors:
        """What is known of it, and of one of its containers."""
        found = [f"{name}:{value}" for name, value in self._plain() if value]
        one = self.container(container) if container is not None else None
        if one is not None:
            found += [f"container-name:{one.name}", *(f"container-image:{image}" for image in one.images)]
        return frozenset(Selector.parse(f"{KIND}:{text}") for text in found)

    def _plain(self) -> Iterator[tuple[str, str]]:
        yield "ns", self.namespace
        yield "sa", self.account
        yield "pod-name", self.name
        yield "pod-uid", self.uid
        yield "node-name", self.node
        yield "pod-open-to-host", "true" if self.open_to_host else ""
        for key, value in self.labels.items():
            yield "pod-label", f"{key}:{value}"
        for kind, name, uid in self.owners:
            yield "pod-owner", f"{kind}:{name}"
            yield "pod-owner-uid", f"{kind}:{uid}"
        for container in self.containers:
            for image in container.images:
                yield "pod-image", image


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterNode:
    """One machine of a cluster."""

    name: str
    uid: str
    labels: Mapping[str, str]


def read_pod(found: Mapping[str, Any]) -> Pod:
    """A pod out of the API's answer. Raises Unreadable."""
    try:
        meta, spec, status = found["metadata"], found["spec"], found.get("status") or {}
        pod = Pod(
            namespace=_text(meta["namespace"]),
            name=_text(meta["name"]),
            uid=parse_uid(meta["uid"]),
            account=_text(spec.get("serviceAccountName", "")),
            node=_text(spec.get("nodeName", "")),
            labels=_labels(meta),
            owners=tuple(
                (_text(one["kind"]), _text(one["name"]), _text(one["uid"])) for one in meta.get("ownerReferences") or ()
            ),
            containers=tuple(_container(one) for name in _STATUSES for one in status.get(name) or ()),
            open_to_host=_open_to_host(spec),
            ending="deletionTimestamp" in meta or status.get("phase") in {"Succeeded", "Failed"},
        )
        pod.selectors()
    except _FAULTS as error:
        raise Unreadable("the Kubernetes API describes a pod in a form that can't be read") from error
    return pod


def read_node(found: Mapping[str, Any]) -> ClusterNode:
    """A node out of the API's answer. Raises Unreadable."""
    try:
        meta = found["metadata"]
        return ClusterNode(name=_text(meta["name"]), uid=parse_uid(meta["uid"]), labels=_labels(meta))
    except _FAULTS as error:
        raise Unreadable("the Kubernetes API describes a node in a form that can't be read") from error


def parse_uid(text: object) -> str:
    """The uid of an object of a cluster. Raises Malformed."""
    if not isinstance(text, str) or not _UID.fullmatch(text):
        raise Malformed("this is not the uid of a Kubernetes object")
    return text


def service_account(username: object) -> tuple[str, str]:
    """Namespace and name out of `system:serviceaccount:<namespace>:<name>`. Raises NotProven."""
    parts = username.split(":") if isinstance(username, str) else []
    if len(parts) != 4 or parts[:2] != ["system", "serviceaccount"] or not all(parts):
        raise NotProven("the token is not one of a Kubernetes service account")
    return parts[2], parts[3]


def _open_to_host(spec: Mapping[str, Any]) -> bool:
    kinds = ("containers", "initContainers", "ephemeralContainers")
    containers = [one for kind in kinds for one in spec.get(kind) or ()]
    return bool(spec.get("hostPID")) or any((one.get("securityContext") or {}).get("privileged") for one in containers)


def _container(found: Mapping[str, Any]) -> Container:
    return Container(
        name=_text(found["name"]),
        image=_text(found.get("image", "")),
        image_id=_text(found.get("imageID", "")).removeprefix("docker-pullable://"),
        id=_text(found.get("containerID", "")),
        restarts=int(found.get("restartCount", 0)),
        started_at=_started((found.get("state") or {}).get("running")),
    )


def _started(running: Mapping[str, Any] | None) -> datetime | None:
    if running is None or not running.get("startedAt"):
        return None
    begun = datetime.fromisoformat(_text(running["startedAt"]))
    return begun if begun.tzinfo is not None else begun.replace(tzinfo=UTC)


def _labels(meta: Mapping[str, Any]) -> dict[str, str]:
    return {_text(key): _text(value) for key, value in (meta.get("labels") or {}).items()}


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value
