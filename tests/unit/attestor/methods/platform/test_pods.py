"""What the Kubernetes API says of pods and nodes, read; and what it may say that is no sense."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestor.errors import NotProven
from attestor.methods.platform.cluster import Cluster, _reviewed
from attestor.methods.platform.pods import Unreadable, read_node, read_pod, service_account
from fakes.clusters import known

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
POD: dict[str, Any] = {
    "metadata": {
        "namespace": "shop",
        "name": "cart-0",
        "uid": "2c48913c-b29f-11e7-9350-020968147796",
        "labels": {"app": "cart"},
        "ownerReferences": [{"kind": "StatefulSet", "name": "cart", "uid": "o"}],
    },
    "spec": {"serviceAccountName": "cart", "nodeName": "n", "containers": [{"name": "main", "securityContext": {}}]},
    "status": {
        "phase": "Running",
        "containerStatuses": [
            {
                "name": "main",
                "image": "a:1",
                "imageID": "docker-pullable://a@sha256:0",
                "containerID": "containerd://1",
                "restartCount": 2,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }
        ],
    },
}
USER: dict[str, Any] = {
    "username": "system:serviceaccount:shop:cart",
    "extra": {
        "authentication.kubernetes.io/pod-name": ["cart-0"],
        "authentication.kubernetes.io/pod-uid": ["2c48913c-b29f-11e7-9350-020968147796"],
        "authentication.kubernetes.io/credential-id": ["JTI=1"],
    },
}


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, one in inner for path in paths(one, (*at, key)))]


def with_junk(whole: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """The same with one value replaced."""
    if not path:
        return junk
    changed = copy.deepcopy(whole)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = junk
    return changed


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(paths(POD)), JSON)
def test_a_pod_with_junk_anywhere_is_read_or_unreadable(path: tuple[Any, ...], junk: Any) -> None:
    """Never another exception: it would end the watch of every pod."""
    try:
        read_pod(with_junk(POD, path, junk)).selectors("main")
    except Unreadable:
        return


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(paths(USER)), JSON)
def test_a_review_with_junk_anywhere_proves_nothing(path: tuple[Any, ...], junk: Any) -> None:
    """Or what it proved before."""
    try:
        found = _reviewed(with_junk(USER, path, junk))
    except NotProven:
        return
    assert (found.namespace, found.account) == service_account(with_junk(USER, path, junk)["username"])


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_a_node_that_is_junk_is_unreadable(junk: Any) -> None:
    """As pods are."""
    for found in (junk, {"metadata": junk}):
        with pytest.raises(Unreadable):
            read_node(found)


def test_a_run_of_a_container_has_its_own_name() -> None:
    """And counts only while it runs."""
    (name,) = read_pod(POD).running
    assert read_pod(POD).running[name] == datetime(2026, 1, 1, tzinfo=UTC)
    path: tuple[Any, ...] = ("status", "containerStatuses", 0)
    again = with_junk(with_junk(POD, (*path, "restartCount"), 3), (*path, "containerID"), "containerd://2")
    assert name not in read_pod(again).running
    states: list[dict[str, Any]] = [{}, {"waiting": {}}, {"running": {}}, {"running": None}]
    for state in states:
        assert read_pod(with_junk(POD, (*path, "state"), state)).running == {}


@pytest.mark.parametrize(
    ("change", "open_to_host"),
    [
        (lambda spec: None, False),
        (lambda spec: spec.update(hostPID=True), True),
        (lambda spec: spec.update(initContainers=[{"securityContext": {"privileged": True}}]), True),
        (lambda spec: spec["containers"][0].update(securityContext=None), False),
    ],
)
def test_a_pod_that_sees_its_machine_says_so(change: Callable[[dict[str, Any]], Any], open_to_host: bool) -> None:  # noqa: FBT001
    """In a selector of its own."""
    pod = copy.deepcopy(POD)
    change(pod["spec"])
    said = {str(one) for one in read_pod(pod).selectors()}
    assert ("k8s:pod-open-to-host:true" in said) is open_to_host


async def test_a_path_in_a_review_leads_nowhere(tmp_path: Path) -> None:
    """What a token names becomes part of an address only when it is a name."""
    async with known(tmp_path) as (api, cluster):
        assert isinstance(cluster, Cluster)
        reviewed = _reviewed(USER)
        for name in ("../../secrets/x", "a/b", "", "a?x=1", "."):
            with pytest.raises(NotProven):
                await cluster.pod_of(type(reviewed)(**{**_fields(reviewed), "pod_name": name}))
        assert api.requests == []


def _fields(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in type(one).__slots__}
