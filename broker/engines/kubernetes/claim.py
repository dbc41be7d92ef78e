"""Whose namespace this is: the Secret `sj-claim`, whose annotations name one installation (traps 19)."""

from __future__ import annotations

from typing import Any

from broker.engines.kubernetes.anchor import MANAGER
from broker.engines.protocol import Claim
from broker.errors import OutcomeUnknown, TargetDown
from ca.errors import Conflict, NotFound, Unavailable
from ca.runtime.kubernetes import Kubernetes, Object, segment

NAME = "sj-claim"
_WHOSE, _WHICH = "sojourn-claimed-by", "sojourn-incarnation"


async def claim(api: Kubernetes, namespace: str, installation: str, incarnation: str) -> Claim:
    """Make the claim if there is none, and read it. Raises Conflict: another's; TargetDown."""
    try:
        return _read(await _found(api, namespace, installation, incarnation), installation)
    except Unavailable as error:
        raise TargetDown(f"the Kubernetes API does not tell whose the namespace is: {error}") from error


async def adopt(api: Kubernetes, namespace: str, installation: str, incarnation: str) -> None:
    """Say anew which incarnation of ours the claim belongs to. Raises Conflict, TargetDown, OutcomeUnknown."""
    try:
        found = await _found(api, namespace, installation, incarnation)
        _read(found, installation)
        meta: dict[str, Any] = {**found["metadata"], "annotations": _notes(installation, incarnation)}
        await api.put(f"{_path(namespace)}/{NAME}", {**found, "metadata": meta})  # its resourceVersion is in it
    except Unavailable as error:
        raise OutcomeUnknown(f"it is not known whether the Kubernetes API heard: {error}") from error


async def _found(api: Kubernetes, namespace: str, installation: str, incarnation: str) -> Object:
    try:
        return await api.get(f"{_path(namespace)}/{NAME}")
    except NotFound:
        meta = {"name": NAME, "namespace": namespace, "labels": {MANAGER: "sojourn"}}
        meta["annotations"] = _notes(installation, incarnation)
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque"}
    try:
        return await api.post(_path(namespace), body)
    except Conflict:  # somebody was faster
        return await api.get(f"{_path(namespace)}/{NAME}")


def _read(found: Object, installation: str) -> Claim:
    meta = found.get("metadata")
    notes = meta.get("annotations") if isinstance(meta, dict) else None
    whose = notes.get(_WHOSE) if isinstance(notes, dict) else None
    if not isinstance(notes, dict) or whose != installation:
        named = f"by the installation `{whose[:20]}`" if isinstance(whose, str) else "by nobody we can read"
        raise Conflict(f"this namespace is claimed {named}; delete its secret `{NAME}` if that one is no more")
    return Claim(installation=installation, incarnation=str(notes.get(_WHICH, ""))[:64])


def _notes(installation: str, incarnation: str) -> dict[str, str]:
    return {_WHOSE: installation, _WHICH: incarnation}


def _path(namespace: str) -> str:
    return f"/api/v1/namespaces/{segment(namespace)}/secrets"
