"""Projected service account tokens (PSAT): a node agent that runs in a pod proves on which machine of which cluster.

The prover sends its cluster's name and the token the kubelet projected, read anew each time. The verifier has the
cluster review it, wants the service account in that cluster's list, reads the pod back, compares its uid, and takes the
machine from the pod's own `spec.nodeName`: never from what the token or the node agent says of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from attestor.conversation import Conversation
from attestor.errors import BadConversation, NotProven
from attestor.methods.node.protocol import Attested, Occasion, parse_node_name
from attestor.methods.platform.cluster import Cluster
from attestor.methods.platform.pods import ClusterNode, Pod
from attestor.methods.platform.protocol import short
from attestor.selector import Selector, Selectors
from ca.errors import Malformed
from ca.runtime import log
from ca.runtime.settings import Settings, parsed_by

METHOD = "k8s_psat"
_log = log.get(__name__)
_UID = "12345678-1234-1234-1234-123456789012"


def _template(text: str) -> str:
    """A name that no two machines share: the cluster, one uid, and fixed text around them."""
    if text.count("{cluster}") != 1 or text.count("{node-uid}") + text.count("{pod-uid}") != 1:
        raise Malformed("a node's name needs `{cluster}` once, and once `{node-uid}` or `{pod-uid}`")
    try:
        parse_node_name(_filled(text, "c" * 20, _UID, _UID))
    except Malformed as error:
        raise Malformed("with its placeholders filled in this is not a node's name, or too long a one") from error
    return text


class VerifierSettings(Settings):
    """What the server wants to know."""

    name: Annotated[str, parsed_by(_template)] = "{cluster}-{node-uid}"
    """Of the node. With `{pod-uid}` several node agents may run on one machine, and each new pod is a new node."""


class ProverSettings(Settings):
    """What the node agent shows."""

    method: Literal["k8s_psat"]
    cluster: str
    token_file: Path = Path("/var/run/secrets/sojourn/token")


class Prover:
    """Sends the token as it is now; its caller has checked the server before."""

    def __init__(self, settings: ProverSettings) -> None:
        self._settings = settings

    async def prove(self, conversation: Conversation) -> None:
        """One message. Raises Malformed when there is no token."""
        path = self._settings.token_file
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Malformed(f"the projected token in `{path}` can't be read") from error
        await conversation.send(json.dumps({"cluster": self._settings.cluster, "token": token}).encode())


class Verifier:
    """Knows the clusters whose node agents may come."""

    def __init__(self, settings: VerifierSettings, clusters: Mapping[str, Cluster], _occasion: Occasion) -> None:
        self._template, self._clusters = settings.name, clusters

    async def verify(self, conversation: Conversation) -> Attested:
        """One message, one review, two looks at the API."""
        name, token = _read(await conversation.receive())
        cluster = self._clusters.get(name)
        if cluster is None:
            raise NotProven(f"`{short(name)}` is not a cluster this server knows")
        reviewed = await cluster.review(token, cluster.settings.node_audience)
        if f"{reviewed.namespace}/{reviewed.account}" not in cluster.settings.node_agents:
            account = short(f"{reviewed.namespace}/{reviewed.account}")
            raise NotProven(f"the service account `{account}` may not speak for a node of the cluster `{name}`")
        pod = await cluster.pod_of(reviewed)
        node = await cluster.node(pod.node)
        _log.info("token reviewed", cluster=name, pod=pod.uid, node=node.name, credential=reviewed.credential)
        return self._attested(cluster, pod, node)

    def _attested(self, cluster: Cluster, pod: Pod, node: ClusterNode) -> Attested:
        settings = cluster.settings
        name = parse_node_name(_filled(self._template, cluster.name, node.uid, pod.uid))
        facts = [
            f"cluster:{cluster.name}",
            f"agent_ns:{pod.namespace}",
            f"agent_sa:{pod.account}",
            f"agent_pod_name:{pod.name}",
            f"agent_pod_uid:{pod.uid}",
            f"agent_node_name:{node.name}",
            f"agent_node_uid:{node.uid}",
            *(f"agent_pod_label:{key}:{pod.labels[key]}" for key in settings.pod_labels if pod.labels.get(key)),
            *(f"agent_node_label:{key}:{node.labels[key]}" for key in settings.node_labels if node.labels.get(key)),
        ]
        about = {Selector("node", f"name:{name}"), Selector("node", f"method:{METHOD}")}
        return Attested(node=name, selectors=frozenset(about | {Selector.parse(f"{METHOD}:{one}") for one in facts}))


async def departed(clusters: Mapping[str, Cluster], selectors: Selectors) -> str:
    """Why a node admitted with `selectors` is no longer what it proved; empty when it is. Raises Unavailable."""
    facts = {name: value for one in selectors if one.type == METHOD for name, _, value in [one.value.partition(":")]}
    cluster = clusters.get(facts.get("cluster", ""))
    if cluster is None:
        return "its cluster is no longer known here"
    if f"{facts.get('agent_ns')}/{facts.get('agent_sa')}" not in cluster.settings.node_agents:
        return "its service account may no longer speak for a node"
    try:
        node = await cluster.node(facts.get("agent_node_name", ""))
    except NotProven:
        return "its cluster has no such machine any more"
    return "" if node.uid == facts.get("agent_node_uid") else "its cluster has another machine of that name"


def _read(message: bytes) -> tuple[str, str]:
    try:
        said = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise BadConversation("the proof must be JSON with `cluster` and `token`") from error
    if not isinstance(said, dict) or said.keys() != {"cluster", "token"}:
        raise BadConversation("the proof must hold `cluster` and `token`, and nothing else")
    name, token = said["cluster"], said["token"]
    if not isinstance(name, str) or not isinstance(token, str):
        raise BadConversation("the proof's `cluster` and `token` must be texts")
    return name, token


def _filled(template: str, cluster: str, node_uid: str, pod_uid: str) -> str:
    return template.replace("{cluster}", cluster).replace("{node-uid}", node_uid).replace("{pod-uid}", pod_uid)
