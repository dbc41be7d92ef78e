"""A pod's projected token: reviewed by its cluster, the pod read back, its uid compared (traps 23).

Every container that can read the token is the pod: the strength is `pod`, and which container asks is not known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from joserfc.util import urlsafe_b64decode

from attestor.errors import NotProven
from attestor.instance import Strength
from attestor.methods.platform.cluster import Cluster
from attestor.methods.platform.pods import Pod
from attestor.methods.platform.protocol import Proven, token_id
from attestor.selector import Selector
from ca.errors import Unavailable

METHOD = "k8s_token"
_YEAR_9999 = 253_402_300_799


class Platform:
    """Tokens of the pods of one cluster."""

    def __init__(self, cluster: Cluster, missing: Callable[[str, str], bool]) -> None:
        """`missing(cluster, uid)` says whether a watch of its pods no longer shows that one."""
        self._cluster, self._missing = cluster, missing

    async def verify(self, token: str, now: datetime) -> Proven:
        """The pod it was made for. Raises NotProven, Unavailable."""
        expires = expiry(token)
        if now >= expires:
            raise NotProven("the token has expired")
        cluster = self._cluster
        pod = await cluster.pod_of(await cluster.review(token, cluster.settings.pod_audience))
        if not pod.running:  # else whatever is shown later would seem to have been started anew
            raise Unavailable(f"the cluster `{cluster.name}` does not show yet that a container of this pod runs")
        place = {"direct", f"method:{METHOD}", f"cluster:{cluster.name}"}
        return Proven(
            subject=subject_of(cluster.name, pod),
            selectors=pod.selectors(),
            place=frozenset(Selector("node", one) for one in place),
            token_id=token_id(token),
            expires_at=expires,
            strength=Strength.POD,
            parts=pod.running,
        )

    def seems_gone(self, subject: str) -> bool:
        """Whether the watch no longer shows it."""
        return self._missing(self._cluster.name, subject.rpartition("/")[2])

    async def is_gone(self, subject: str) -> bool:
        """Whether the API shows another pod of that name, or none, or one that is over. Raises Unavailable."""
        _, _, namespace, name, uid = subject.split("/")
        pod = await self._cluster.pod(namespace, name)
        return pod is None or pod.uid != uid or pod.ending


def subject_of(cluster: str, pod: Pod) -> str:
    """The name of a pod that no other pod ever has."""
    return f"{METHOD}/{cluster}/{pod.namespace}/{pod.name}/{pod.uid}"


def expiry(token: str) -> datetime:
    """When a token ends, by its own word: it counts only once the cluster vouched for it. Raises NotProven."""
    claims = peek(token)
    expires = claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int) or not 0 < expires <= _YEAR_9999:
        raise NotProven("the token does not say when it ends")
    return datetime.fromtimestamp(expires, UTC)


def peek(token: str) -> Mapping[str, object]:
    """What a token says, believed by nobody. Raises NotProven."""
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        raise NotProven("this is not a token: expected a JWS in compact form")
    try:
        claims = json.loads(urlsafe_b64decode(parts[1].encode()))
    except (ValueError, RecursionError) as error:
        raise NotProven("this is not a token: its claims can't be read") from error
    if not isinstance(claims, dict):
        raise NotProven("this is not a token: its claims are no object")
    return claims
