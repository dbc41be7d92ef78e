"""Which pod and which container a process is in, by the paths of its cgroups.

    /kubepods/burstable/pod<uid>/<container>
    /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<container>.scope

A path is read from the root down, and only along names under which nobody but root makes cgroups: users have cgroups of
their own below `user.slice`, a service those below its unit, a container those below itself, and whoever may make one
may call it after another's pod. So what stands below the first container is its own affair, and what stands above a
pod must be a kubelet's. Nothing else is a pod; two lines that name two pods or two containers are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from attestor.methods.workload.cgroup import Cgroup, Entry, preferred
from attestor.methods.workload.protocol import CantSay

_ID = r"(?P<id>[0-9a-f]{64})"
_UID = r"pod(?P<uid>[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
_SLICE = r"(?:[a-z0-9]+-)*kubepods(?:-besteffort|-burstable|-guaranteed)?"
_POD = re.compile(rf"{_UID}|{_SLICE}-{_UID.replace('uid', 'uid2')}\.slice")
_CONTAINER = re.compile(rf"(?!.*conmon)(?:[a-z][a-z0-9]*(?:-[a-z0-9]+)*?-)?{_ID}(?:\.scope)?")
_BOTH = re.compile(rf"{_SLICE}-{_UID}\.slice:[a-z][a-z0-9-]*:{_ID}")
_MONITOR = re.compile(rf"[a-z]+-conmon-{_ID}(?:\.scope)?")
_KUBELETS = re.compile(
    rf"kubepods|{_SLICE}\.slice|besteffort|burstable|guaranteed|kubelet|kubelet\.slice"
    r"|docker|podman|(?:docker-|libpod-)?[0-9a-f]{64}(?:\.scope)?"  # a node that is a container itself
    r"|system\.slice|(?:containerd|docker|crio|kubelet|k3s|k0s[a-z]*|rke2-[a-z]+)\.service"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A container, and its pod's uid unless the path leaves it open; the cgroups of both."""

    container: str
    pod: str | None
    container_cgroup: Cgroup
    pod_cgroup: Cgroup | None


def locate(entries: Sequence[Entry], *, parents: Collection[str] = ()) -> Located | None:
    """The container of a process, or None when it is in none of a pod.

    `parents` are further names that may stand above a pod: the kubelet's `--cgroup-root`.

    Raises:
        CantSay: the lines contradict each other.
    """
    found = [one for entry in preferred(entries) if (one := _in(entry, parents)) is not None]
    pods = {one.pod for one in found if one.pod is not None}
    monitored = {match["id"] for entry in entries for name in entry.segments if (match := _MONITOR.fullmatch(name))}
    containers = {one.container for one in found}
    if len(pods) > 1:
        raise CantSay("its cgroups name more than one pod")
    if found and len(containers | monitored) > 1:
        raise CantSay("its cgroups name more than one container")
    return next((one for one in found if one.pod is not None), found[0] if found else None)


def _in(entry: Entry, parents: Collection[str]) -> Located | None:
    """What one line says, from its root down."""
    names = entry.segments
    outside = sum(name == ".." for name in names)
    if any(name == ".." for name in names[outside:]):
        return None
    for depth, name in enumerate(names[outside:], outside):
        both, pod = _BOTH.fullmatch(name), _POD.fullmatch(name)
        if both is not None:
            return _located(entry, depth, both["id"], both["uid"], pod_depth=None)
        if pod is not None:
            below = _CONTAINER.fullmatch(names[depth + 1]) if len(names) > depth + 1 else None
            uid = pod["uid"] or pod["uid2"]
            return below and _located(entry, depth + 1, below["id"], uid, pod_depth=depth)
        if outside and depth == outside and (own := _CONTAINER.fullmatch(name)):
            return _located(entry, depth, own["id"], None, pod_depth=None)  # a neighbour in our own pod
        if not _KUBELETS.fullmatch(name) and name not in parents:
            return None
    return None


def _located(entry: Entry, depth: int, container: str, pod: str | None, *, pod_depth: int | None) -> Located:
    def above(last: int) -> Cgroup:
        return Cgroup(entry.controllers, "/" + "/".join(entry.segments[: last + 1]))

    return Located(
        container=container,
        pod=pod.replace("_", "-") if pod else None,
        container_cgroup=above(depth),
        pod_cgroup=None if pod_depth is None else above(pod_depth),
    )
