"""Traps 23: a pod's token is a bearer token, shared by its containers and kept by the kubelet for most of its life.

Whoever copied it can't have an identity for a key of his own; a container that restarted can.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography import x509

from attestor.errors import NotEntitled, NotProven
from attestor.server.risks import Risk
from ca.errors import Denied, Problem, Unavailable
from fakes.clusters import NODE_AUDIENCE, known
from fakes.direct_parts import DirectParts, direct_parts, new_key, request
from fakes.stores import on_every_store  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("on_every_store")


async def risks(parts: DirectParts) -> list[str]:
    """What operators are told of."""
    return [f"{one.kind} {one.subject.rpartition('/')[0]}" for one in await parts.risks.newest()]


async def test_a_copied_token_serves_no_other_key(tmp_path: Path) -> None:
    """However often it is tried; each try is told of, in the log, the count and the store. The pod goes on."""
    async with direct_parts(tmp_path) as parts:
        token, key = parts.token(parts.pod()), new_key()
        first, _ = await parts.attest(token, key)
        for _ in range(2):
            with pytest.raises(NotProven, match="another key"):
                await parts.attest(token, new_key())
        assert await risks(parts) == [f"{Risk.SECOND_KEY} k8s_token/prod/shop/cart-0"] * 2
        assert parts.metrics.value("sojourn_risk_events_total", kind="second-key") == 2
        assert (await parts.attest(token, key))[0].instance == first.instance


async def test_a_thief_who_comes_first_is_loud(tmp_path: Path) -> None:
    """The pod itself is then refused: that is seen, where a shared identity would not be."""
    async with direct_parts(tmp_path) as parts:
        token = parts.token(parts.pod())
        await parts.attest(token, new_key())
        with pytest.raises(NotProven):
            await parts.attest(token, new_key())
        assert len(await risks(parts)) == 1


async def test_a_restarted_container_may_bring_one_new_key(tmp_path: Path) -> None:
    """For each restart the API shows, one; what was there before is no evidence twice."""
    async with direct_parts(tmp_path) as parts:
        pod = parts.pod(containers=("main", "side"))
        token, before = parts.token(pod), new_key()
        first, _ = await parts.attest(token, before)
        await parts.server.clock.advance(5)
        parts.api.restart(pod)
        after = new_key()
        assert (await parts.attest(token, after))[0].instance == first.instance
        with pytest.raises(NotProven):
            await parts.attest(token, new_key())
        await parts.server.clock.advance(5)
        parts.api.restart(pod, "side")
        await parts.attest(token, new_key())
        with pytest.raises(NotProven):
            await parts.attest(token, new_key())
        for known_key in (before, after):
            await parts.attest(token, known_key)
        assert len(await risks(parts)) == 2


async def test_a_container_that_was_shown_late_is_no_restart(tmp_path: Path) -> None:
    """The API is behind: what it shows for the first time began before the key was bound."""
    async with direct_parts(tmp_path) as parts:
        pod = parts.pod(containers=("main", "side"))
        token, key = parts.token(pod), new_key()
        shown = pod["status"].pop("containerStatuses")
        with pytest.raises(Unavailable, match="does not show yet"):
            await parts.attest(token, key)
        await parts.server.clock.advance(2)
        pod["status"]["containerStatuses"] = shown[:1]
        await parts.attest(token, key)
        await parts.server.clock.advance(2)
        pod["status"]["containerStatuses"] = shown
        with pytest.raises(NotProven):
            await parts.attest(token, new_key())


async def test_a_container_that_does_not_run_is_no_evidence(tmp_path: Path) -> None:
    """Waiting, over, or of a time that can't be told."""
    async with direct_parts(tmp_path) as parts:
        pod = parts.pod(containers=("main", "side"))
        token = parts.token(pod)
        await parts.attest(token, new_key())
        await parts.server.clock.advance(5)
        parts.api.restart(pod, "side")
        (side,) = [one for one in pod["status"]["containerStatuses"] if one["name"] == "side"]
        for state in ({"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": side["state"]["running"]}, {}):
            side["state"] = state
            with pytest.raises(NotProven):
                await parts.attest(token, new_key())


async def test_two_keys_at_once_are_not_both_the_first(tmp_path: Path) -> None:
    """A race for the first place has one winner."""
    async with direct_parts(tmp_path) as parts:
        token = parts.token(parts.pod())
        results = await asyncio.gather(*(parts.attest(token, new_key()) for _ in range(8)), return_exceptions=True)
        assert sum(not isinstance(one, BaseException) for one in results) == 1
        assert all(isinstance(one, Problem) for one in results if isinstance(one, BaseException))


async def test_a_request_for_anothers_name_is_refused(tmp_path: Path) -> None:
    """Not quietly answered with another certificate; nor may it bring a DNS name no rule gives."""
    async with direct_parts(tmp_path) as parts:
        token, key = parts.token(parts.pod()), new_key()
        for name in (
            x509.UniformResourceIdentifier("spiffe://example.org/agents"),
            x509.UniformResourceIdentifier("spiffe://example.org/sojourn/server"),
            x509.UniformResourceIdentifier("spiffe://other.org/shop/cart"),
            x509.DNSName("bank.example"),
            x509.RFC822Name("root@example.org"),
        ):
            with pytest.raises(Denied, match="no rule gives"):
                await parts.attest(token, csr=request(key, [name]))
        own = [x509.UniformResourceIdentifier("spiffe://example.org/shop/cart"), x509.DNSName("cart.shop")]
        await parts.attest(token, csr=request(key, own))


async def test_the_audience_must_be_ours_and_be_said(tmp_path: Path) -> None:
    """An authenticator that does not know audiences vouches for tokens meant for anybody."""
    async with direct_parts(tmp_path) as parts:
        pod = parts.pod()
        for audience in ([NODE_AUDIENCE], ["other"], ["https://kubernetes.default.svc.cluster.local"]):
            with pytest.raises(NotProven):
                await parts.attest(parts.api.token(pod, audience))
        for echoed in (None, [], ["other"]):
            parts.api.echo = lambda _, said=echoed: said  # type: ignore[misc]
            with pytest.raises(NotProven, match="meant for"):
                await parts.attest(parts.token(pod))


async def test_a_token_of_a_former_pod_is_worth_nothing(tmp_path: Path) -> None:
    """Same name, same account, another uid, and a review that is behind the times."""
    async with direct_parts(tmp_path) as parts:
        token = parts.token(parts.pod())
        status = parts.api._reviewed(token, ["sojourn"])
        parts.pod()
        with pytest.raises(NotProven):
            await parts.attest(token)
        parts.api.review = lambda _: status
        with pytest.raises(NotProven, match="is gone"):
            await parts.attest(token)


async def test_a_token_of_another_cluster_is_worth_nothing(tmp_path: Path) -> None:
    """It names the same namespace, account and pod."""
    async with direct_parts(tmp_path) as parts, known(tmp_path, "other") as (other, _):
        parts.pod()
        pod = other.add_pod("shop", "cart-0", node="worker-1", account="cart")
        with pytest.raises(NotProven):
            await parts.attest(other.token(pod, ["sojourn"]))


async def test_any_node_is_not_no_node(tmp_path: Path) -> None:
    """A rule for every node was written with node agents in mind: it gives a pod by itself nothing."""
    rules = 'rules: [{name: any, nodes: ["node:*"], when: ["k8s:ns:shop"], spiffe_id: /any}]'
    async with direct_parts(tmp_path, rules) as parts:
        with pytest.raises(NotEntitled):
            await parts.attest(parts.token(parts.pod()))


async def test_a_flood_of_tries_fills_nothing(tmp_path: Path) -> None:
    """Tokens nobody vouches for leave no row behind."""
    async with direct_parts(tmp_path) as parts:
        forged = parts.token(parts.pod())[:-8] + "AAAAAAAA"
        for _ in range(3):
            with pytest.raises(NotProven):
                await parts.attest(forged)
        row = await parts.server.database.read(lambda tx: tx.fetchrow("SELECT COUNT(*) AS n FROM platform_tokens"))
        assert row is not None
        assert row["n"] == 0
