"""Node agents in Kubernetes prove on which machine they run, to a cluster's API over TLS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attestor.conversation import pipe
from attestor.errors import AdmittedOtherwise, BadConversation, Banned, NotProven
from attestor.methods.node.k8s_psat import METHOD, Prover, ProverSettings, VerifierSettings
from attestor.selector import texts
from attestor.server.store.nodes import NodeState
from ca.errors import Malformed, Problem, Unavailable
from ca.runtime.document import BadSettings
from ca.runtime.settings import loads
from fakes.attestor_parts import attestation, csr, wants
from fakes.clusters import NODE_AUDIENCE, POD_AUDIENCE, node_agent, prove, with_nodes


async def test_a_node_is_named_by_its_uid_and_described_by_the_api(tmp_path: Path) -> None:
    """Labels only where the settings allow their key."""
    async with with_nodes(tmp_path, pod_labels=("app",), node_labels=("zone", "absent")) as (api, server):
        pod = node_agent(api, "worker-1")
        admitted = await prove(server, api.token(pod, [NODE_AUDIENCE]))
        uid = api.nodes["worker-1"]["metadata"]["uid"]
        assert admitted.id == server.peer_id(f"prod-{uid}")
        assert texts(admitted.selectors) == sorted(
            [
                "k8s_psat:agent_node_label:zone:a",
                "k8s_psat:agent_node_name:worker-1",
                f"k8s_psat:agent_node_uid:{uid}",
                "k8s_psat:agent_ns:sojourn",
                "k8s_psat:agent_pod_label:app:node-agent",
                "k8s_psat:agent_pod_name:node-agent-worker-1",
                f"k8s_psat:agent_pod_uid:{pod['metadata']['uid']}",
                "k8s_psat:agent_sa:node-agent",
                "k8s_psat:cluster:prod",
                f"node:name:prod-{uid}",
                "node:method:k8s_psat",
            ]
        )


async def test_the_machine_is_what_the_pod_says_and_not_the_token(tmp_path: Path) -> None:
    """The API server does not verify a token's own `node` when it reviews it."""
    async with with_nodes(tmp_path) as (api, server):
        pod = node_agent(api, "worker-1")
        other = api.add_node("worker-2")["metadata"]["uid"]
        claims = {"namespace": "sojourn", "pod": {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}}
        forged = api.token(pod, [NODE_AUDIENCE], **{"kubernetes.io": {**claims, "node": {"name": "worker-2"}}})
        assert other not in str((await prove(server, forged)).id)


Wrong = Callable[[Any, dict[str, Any]], str]


def _status(change: Callable[[dict[str, Any]], Any]) -> Wrong:
    """A review that is answered in another way."""

    def apply(api: Any, pod: dict[str, Any]) -> str:
        def review(status: dict[str, Any]) -> dict[str, Any]:
            change(status)
            return status

        api.review = review
        return str(api.token(pod, [NODE_AUDIENCE]))

    return apply


def _gone(api: Any, pod: dict[str, Any]) -> str:
    token = api.token(pod, [NODE_AUDIENCE])
    api.remove(pod)
    return str(token)


def _replaced(api: Any, pod: dict[str, Any]) -> str:
    """A pod of the same name, after a review that is behind the times."""
    token = api.token(pod, [NODE_AUDIENCE])
    status = api._reviewed(token, [NODE_AUDIENCE])
    api.review = lambda _: status
    node_agent(api, "worker-1")
    return str(token)


def _ending(api: Any, pod: dict[str, Any]) -> str:
    api.mark_deleting(pod)
    return str(api.token(pod, [NODE_AUDIENCE]))


def _other_account(api: Any, _: dict[str, Any]) -> str:
    return str(api.token(api.add_pod("shop", "cart", node="worker-1"), [NODE_AUDIENCE]))


def _no_echo(echo: Callable[[list[str]], list[str] | None]) -> Wrong:
    def apply(api: Any, pod: dict[str, Any]) -> str:
        api.echo = echo
        return str(api.token(pod, [NODE_AUDIENCE]))

    return apply


def _extra(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(status: dict[str, Any]) -> None:
        for name, value in changes.items():
            status["user"]["extra"][f"authentication.kubernetes.io/{name.replace('_', '-')}"] = value

    return change


WRONG: dict[str, Wrong] = {
    "another audience": lambda api, pod: api.token(pod, [POD_AUDIENCE]),
    "the API's own audience": lambda api, pod: api.token(pod, ["https://kubernetes.default.svc.cluster.local"]),
    "expired": lambda api, pod: api.token(pod, [NODE_AUDIENCE], exp=1),
    "another issuer": lambda api, pod: api.token(pod, [NODE_AUDIENCE], iss="https://other"),
    "no token": lambda api, pod: "x",
    "empty": lambda api, pod: "",
    "with a line break": lambda api, pod: api.token(pod, [NODE_AUDIENCE]) + "\n",
    "too long": lambda api, pod: "x" * 20_000,
    "audience not echoed": _no_echo(lambda _: None),
    "audience echoed as none": _no_echo(lambda _: []),
    "another audience echoed": _no_echo(lambda _: ["other"]),
    "pod gone": _gone,
    "pod replaced": _replaced,
    "pod about to end": _ending,
    "account not in the list": _other_account,
    "no service account": _status(lambda status: status["user"].update(username="system:node:worker-1")),
    "username of five parts": _status(
        lambda s: s["user"].update(username="system:serviceaccount:sojourn:node-agent:x")
    ),
    "prefix of another kind": _status(lambda s: s["user"].update(username="system:other:sojourn:node-agent")),
    "not bound to a pod": _status(lambda status: status["user"].pop("extra")),
    "two pod names": _status(_extra(pod_name=["a", "b"])),
    "no pod uid": _status(_extra(pod_uid=[])),
    "a pod uid that is none": _status(_extra(pod_uid=["../x"])),
    "a pod name that leads elsewhere": _status(_extra(pod_name=["../../nodes/worker-1"])),
    "authenticated as a text": _status(lambda status: status.update(authenticated="true")),
    "an error beside": _status(lambda status: status.update(error="x")),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_whatever_is_wrong_is_refused(tmp_path: Path, wrong: str) -> None:
    """And no node comes of it."""
    async with with_nodes(tmp_path) as (api, server):
        token = WRONG[wrong](api, node_agent(api, "worker-1"))
        with pytest.raises(NotProven):
            await prove(server, token)


async def test_a_token_of_another_cluster_is_worth_nothing_here(tmp_path: Path) -> None:
    """Signed by another issuer's key, whatever it says; and an unknown cluster is not asked."""
    async with with_nodes(tmp_path / "a") as (api, server), with_nodes(tmp_path / "b") as (other, _):
        token = other.token(node_agent(other, "worker-1"), [NODE_AUDIENCE])
        node_agent(api, "worker-1")
        with pytest.raises(NotProven, match="does not vouch"):
            await prove(server, token)
        with pytest.raises(NotProven, match="not a cluster"):
            await prove(server, token, name="b")


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_an_api_that_does_not_answer_admits_nobody(tmp_path: Path, status: int) -> None:
    """A fault of ours or the API's."""
    async with with_nodes(tmp_path) as (api, server):
        token = api.token(node_agent(api, "worker-1"), [NODE_AUDIENCE])
        api.status = status
        with pytest.raises(Problem):
            await prove(server, token)


@pytest.mark.parametrize("message", [b"", b"{", b"[]", b"{}", b'{"cluster": 1, "token": "x"}', b'{"cluster": "a"}'])
async def test_a_proof_of_another_form_is_refused(tmp_path: Path, message: bytes) -> None:
    """Before any cluster is asked."""
    async with with_nodes(tmp_path) as (api, server):
        ours, theirs = pipe()
        await ours.send(message)
        with pytest.raises(BadConversation):
            await server.admission.attest(METHOD, csr(), theirs, server.clock.now())
        with pytest.raises(BadConversation):
            await prove(server, "t", more="x")
        assert api.requests == []


async def test_a_node_that_comes_again_keeps_its_instances(tmp_path: Path) -> None:
    """The machine is the same; the leaf of the earlier admission opens nothing. Evicted it may return, banned not."""
    rules = "rules: [{name: a, nodes: ['k8s_psat:cluster:prod'], when: ['unix:uid:7'], spiffe_id: /a}]"
    async with with_nodes(tmp_path, rules) as (api, server):
        token = api.token(node_agent(api, "worker-1"), [NODE_AUDIENCE])
        first = await prove(server, token)
        of, now = attestation("unix:uid:7"), server.clock.now()
        await server.workloads.sign(await server.node(first.id), [wants("/a", of)], now)
        again = await prove(server, token)
        assert again.id == first.id
        assert await server.instances.state(of.instance) == "live"
        with pytest.raises(Banned, match="admitted anew"):
            await server.admission.recognise(server.peer(first.chain), now)
        name = first.id.path.rpartition("/")[2]
        await server.admission.send_away(name, NodeState.EVICTED, now)
        assert await server.instances.state(of.instance) == "ended"
        await prove(server, token)
        await server.admission.send_away(name, NodeState.BANNED, now)
        with pytest.raises(Banned):
            await prove(server, token)


async def test_one_method_does_not_take_anothers_node(tmp_path: Path) -> None:
    """Until an operator evicts it."""
    async with with_nodes(tmp_path) as (api, server):
        admitted = await prove(server, api.token(node_agent(api, "worker-1"), [NODE_AUDIENCE]))
        name = admitted.id.path.rpartition("/")[2]
        with pytest.raises(AdmittedOtherwise):
            await server.admit(name)
        assert (await server.admission.recognise(server.peer(admitted.chain), server.clock.now())).method == METHOD
        await server.admission.send_away(name, NodeState.EVICTED, server.clock.now())
        await server.admit(name)


async def test_the_prover_reads_the_token_each_time(tmp_path: Path) -> None:
    """The kubelet replaces it."""
    settings = ProverSettings(method="k8s_psat", cluster="prod", token_file=tmp_path / "token")
    ours, theirs = pipe()
    with pytest.raises(Malformed, match="can't be read"):
        await Prover(settings).prove(ours)
    for text in ("one", "two"):
        settings.token_file.write_text(text + "\n")
        await Prover(settings).prove(ours)
        assert await theirs.receive() == b'{"cluster": "prod", "token": "%s"}' % text.encode()


@pytest.mark.parametrize(
    "name", ["{cluster}", "{node-uid}", "{cluster}-{node-name}", "{cluster}-{node-uid}-{pod-uid}", "x"]
)
def test_a_name_two_machines_could_share_is_refused(name: str) -> None:
    """When the settings are read."""
    with pytest.raises(BadSettings):
        loads(f"name: '{name}'", "settings", VerifierSettings)


async def test_a_pod_of_the_node_agent_may_be_the_node(tmp_path: Path) -> None:
    """Where several run on one machine."""
    async with with_nodes(tmp_path, name="pod.{cluster}.{pod-uid}") as (api, server):
        pod = node_agent(api, "worker-1")
        admitted = await prove(server, api.token(pod, [NODE_AUDIENCE]))
        assert admitted.id == server.peer_id(f"pod.prod.{pod['metadata']['uid']}")


async def test_an_answer_that_can_t_be_read_is_no_answer(tmp_path: Path) -> None:
    """A node without a uid, a review without a status."""
    async with with_nodes(tmp_path) as (api, server):
        token = api.token(node_agent(api, "worker-1"), [NODE_AUDIENCE])
        api.nodes["worker-1"]["metadata"]["uid"] = "x"
        with pytest.raises(Unavailable):
            await prove(server, token)
