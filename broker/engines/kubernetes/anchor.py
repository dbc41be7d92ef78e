"""The Secret a token is bound to: it holds nothing, and its being there is what makes the token good.

It is called as the principal is, with `-` for `_`. A name is taken once: `POST` answers 409 to whoever comes second.
One that is `ended` is of no use to any token; it only holds the name until everything is cleared away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from broker.errors import NotYet, OutcomeUnknown, TargetDown
from ca.errors import Conflict, Malformed, NotFound, Problem, Unavailable
from ca.runtime.kubernetes import Kubernetes, Object, segment

MANAGER = "app.kubernetes.io/managed-by"
INSTALLATION = "sojourn-installation"
ENDED = "sojourn-ended-at"

_NAME = re.compile(r"sj_[a-z0-9]{1,20}_[a-z0-9]{1,38}")
_UID = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One that is there. `ended_at` is when it took the place of one that tokens were bound to, if it did."""

    uid: str
    ended: bool
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Anchors:
    """Those of one namespace."""

    api: Kubernetes
    namespace: str

    async def make(self, name: str, *, ended_at: datetime | None = None, ended: bool = False) -> Anchor:
        """Take the name. Raises Conflict: it is taken; OutcomeUnknown, and what the API refuses with."""
        notes = {ENDED: "" if ended_at is None else ended_at.astimezone(UTC).isoformat()} if ended else {}
        labels = {MANAGER: "sojourn", INSTALLATION: name.split("_")[1]}
        meta = {"name": object_name(name), "namespace": self.namespace, "labels": labels, "annotations": notes}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "immutable": True}
        try:
            return _anchor(await self.api.post(self._path(), body))
        except Conflict as error:
            raise Conflict("a principal of that name is there already") from error
        except Unavailable as error:
            raise OutcomeUnknown(f"it is not known whether the Kubernetes API heard: {error}") from error

    async def find(self, name: str) -> Anchor | None:
        """The one of that name. Raises TargetDown, Conflict: it is somebody else's."""
        try:
            return _anchor(await self.api.get(self._path(name)))
        except NotFound:
            return None
        except Unavailable as error:
            raise TargetDown(f"the Kubernetes API can't be asked: {error}") from error

    async def remove(self, name: str, anchor: Anchor) -> None:
        """Remove this very one, and look. Raises NotYet, OutcomeUnknown."""
        try:
            await self.api.delete(self._path(name), anchor.uid)
        except NotFound:
            return
        except Conflict as error:
            raise NotYet("another object took its place in between") from error
        except Unavailable as error:
            raise OutcomeUnknown(f"it is not known whether the Kubernetes API heard: {error}") from error
        if await self.find(name) is not None:
            raise NotYet("it was told to go and is still there: something (a finalizer?) holds it")

    async def names(self, prefix: str) -> Sequence[str]:
        """What principals are called whose name begins with `prefix`. Raises TargetDown."""
        wanted = f"{MANAGER}=sojourn,{INSTALLATION}"
        parts = prefix.split("_")
        if len(parts) > 2 and parts[1].isalnum():
            wanted += f"={parts[1]}"
        try:
            found = await self.api.list(self._path(), {"labelSelector": wanted})
        except Problem as error:
            raise TargetDown(f"the Kubernetes API does not list its secrets: {error}") from error
        names = [str(_meta(one).get("name", "")).replace("-", "_") for one in found]
        return sorted(name for name in names if name.startswith(prefix) and _NAME.fullmatch(name))

    def _path(self, name: str | None = None) -> str:
        folder = f"/api/v1/namespaces/{segment(self.namespace)}/secrets"
        return folder if name is None else f"{folder}/{object_name(name)}"


def object_name(name: str) -> str:
    """What the Secret of a principal is called. Raises Malformed."""
    if not _NAME.fullmatch(name):
        raise Malformed("the name of a principal is `sj_`, its installation, `_`, and lower-case letters and digits")
    return name.replace("_", "-")


def _anchor(found: Object) -> Anchor:
    meta = _meta(found)
    uid, labels, notes = meta.get("uid"), meta.get("labels") or {}, meta.get("annotations") or {}
    if not isinstance(uid, str) or not _UID.fullmatch(uid) or not isinstance(labels, dict):
        raise Unavailable("the Kubernetes API answers with a secret that has no uid")
    if labels.get(MANAGER) != "sojourn" or INSTALLATION not in labels or not isinstance(notes, dict):
        raise Conflict("the secret of that name is not one of ours")
    return Anchor(uid=uid, ended=ENDED in notes, ended_at=_moment(notes.get(ENDED)))


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) and text else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def _meta(found: Object) -> Mapping[str, Any]:
    meta = found.get("metadata")
    if not isinstance(meta, dict):
        raise Unavailable("the Kubernetes API answers with an object that has no metadata")
    return meta
