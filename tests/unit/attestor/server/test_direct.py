"""Pods and jobs that attest without a node agent."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from attestor.errors import Banned, NotEntitled, NotProven
from attestor.instance import State
from attestor.server.store.nodes import NodeState
from ca.errors import Denied, Malformed, Unavailable
from ca.runtime.process import background
from ca.spiffe import der
from fakes.attestor_parts import DOMAIN
from fakes.direct_parts import DirectParts, direct_parts, new_key, request
from fakes.stores import on_every_store  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("on_every_store")


async def state(parts: DirectParts, instance: str) -> State:
    """What became of it."""
    return await parts.server.instances.state(instance)


async def test_a_pod_gets_what_rules_that_name_direct_attestation_give(tmp_path: Path) -> None:
    """The default first; not what `node:*` gives, nor what needs a node agent."""
    async with direct_parts(tmp_path) as parts:
        key = new_key()
        one, issued = await parts.attest(parts.token(parts.pod()), key)
        assert [each.entitled.id.path for each in issued] == ["/shop/cart", "/second"]
        first, second = (parts.server.peer(each.chain) for each in issued)
        assert (first.id, first.instance) == (DOMAIN.member("/shop/cart"), one.instance)
        assert second.instance == one.instance
        now = parts.server.clock.now()
        assert first.not_after - now == timedelta(minutes=5)
        assert second.not_after - now == timedelta(minutes=1)
        leaf = x509.load_der_x509_certificate(der.split(issued[0].chain, "a chain", 8)[0])
        assert leaf.public_key() == key.public_key()
        assert await state(parts, one.instance) is State.LIVE


async def test_one_identity_may_be_asked_for(tmp_path: Path) -> None:
    """And a JWT-SVID besides, for audiences the rule allows."""
    async with direct_parts(tmp_path) as parts:
        token = parts.token(parts.pod())
        _, issued = await parts.attest(token, wanted=DOMAIN.member("/second"), audience=("a", "b"))
        assert [each.entitled.id.path for each in issued] == ["/second"]
        assert issued[0].jwt
        for wanted in ("/any", "/agents", "/other", "/sojourn/server"):
            with pytest.raises(NotEntitled):
                await parts.attest(parts.token(parts.pod()), wanted=DOMAIN.member(wanted))
        with pytest.raises(Denied, match="audiences"):
            await parts.attest(parts.token(parts.pod()), wanted=DOMAIN.member("/shop/cart"), audience=("a",))


async def test_a_pod_is_one_instance(tmp_path: Path) -> None:
    """Renewed with the same key, or by a newer token with another; a pod of the same name is another one."""
    async with direct_parts(tmp_path) as parts:
        pod, key = parts.pod(), new_key()
        token = parts.token(pod)
        first, _ = await parts.attest(token, key)
        await parts.server.clock.advance(120)
        again, _ = await parts.attest(token, key)
        newer, _ = await parts.attest(parts.token(pod), new_key())
        assert first.instance == again.instance == newer.instance
        assert again.renew_by - first.renew_by == timedelta(seconds=120)
        successor, _ = await parts.attest(parts.token(parts.pod()))
        assert successor.instance != first.instance


async def test_nothing_outlives_the_token(tmp_path: Path) -> None:
    """A token about to end is not worth a leaf."""
    async with direct_parts(tmp_path) as parts:
        pod, now = parts.pod(), parts.server.clock.now()
        _, issued = await parts.attest(parts.token(pod, exp=int(now.timestamp()) + 60), audience=("orders",))
        assert issued[0].expires_at == now + timedelta(seconds=60)
        assert parts.server.peer(issued[0].chain).not_after <= now + timedelta(seconds=60)
        for left in (5, 0, -1):
            with pytest.raises(NotProven):
                await parts.attest(parts.token(pod, exp=int(now.timestamp()) + left))
        with pytest.raises(NotProven):
            await parts.attest(parts.token(pod, exp=None))


async def test_what_is_not_renewed_has_ended(tmp_path: Path) -> None:
    """A while after its leaf; the next attestation begins another instance. The time we were away does not count."""
    async with direct_parts(tmp_path) as parts:
        pod = parts.pod()
        one, _ = await parts.attest(parts.token(pod))
        await parts.server.clock.advance(329)
        await parts.direct.tick(parts.server.clock.now())
        assert await state(parts, one.instance) is State.LIVE
        await parts.server.clock.advance(2)
        await parts.direct.tick(parts.server.clock.now())
        assert await state(parts, one.instance) is State.ENDED
        another, _ = await parts.attest(parts.token(pod))
        assert another.instance != one.instance


async def test_a_deleted_pod_ends_at_once_where_pods_are_watched(tmp_path: Path) -> None:
    """The watch says that something happened, the API that it is so."""
    async with asyncio.timeout(60), direct_parts(tmp_path) as parts:
        clock, cluster = parts.server.clock, parts.view._clusters["prod"]
        async with background("pods", partial(parts.view.follow, cluster), every=5, clock=clock):
            await clock.until(lambda: parts.view.watches("prod"))
            pod = parts.pod()
            uid = pod["metadata"]["uid"]
            one, _ = await parts.attest(parts.token(pod))
            await parts.direct.tick(clock.now())
            assert await state(parts, one.instance) is State.LIVE, "the watch has not shown it yet, and the API has it"
            await parts.api.stir()
            await clock.until(lambda: not parts.view.missing("prod", uid))
            parts.api.remove(pod)
            await parts.api.stir()
            await clock.until(lambda: parts.view.missing("prod", uid))
            await parts.direct.tick(clock.now())
            assert await state(parts, one.instance) is State.ENDED


async def test_a_renewal_that_fails_because_the_pod_is_gone_ends_it(tmp_path: Path) -> None:
    """Also without a watch. An API that is away ends nothing."""
    async with direct_parts(tmp_path) as parts:
        pod, key = parts.pod(), new_key()
        token = parts.token(pod)
        one, _ = await parts.attest(token, key)
        parts.api.status = 503
        with pytest.raises(Unavailable):
            await parts.attest(token, key)
        assert await state(parts, one.instance) is State.LIVE
        parts.api.status = None
        parts.api.remove(pod)
        with pytest.raises(NotProven):
            await parts.attest(token, key)
        assert await state(parts, one.instance) is State.ENDED


async def test_an_old_token_of_a_living_pod_ends_nothing(tmp_path: Path) -> None:
    """Somebody shows what expired long ago."""
    async with direct_parts(tmp_path) as parts:
        pod = parts.pod()
        now = int(parts.server.clock.now().timestamp())
        old = parts.token(pod, exp=now + 30)
        one, _ = await parts.attest(old)
        await parts.server.clock.advance(31)
        with pytest.raises(NotProven, match="expired"):
            await parts.attest(old)
        assert await state(parts, one.instance) is State.LIVE


async def test_a_job_is_taken_by_its_token(tmp_path: Path) -> None:
    """Its instance ends with what it was given."""
    async with direct_parts(tmp_path) as parts:
        key = new_key()
        token = parts.issuer.token()
        one, issued = await parts.job(token, key)
        assert [each.entitled.id.path for each in issued] == ["/job"]
        assert (await parts.job(token, key))[0].instance == one.instance
        with pytest.raises(NotProven, match="another key"):
            await parts.job(token)
        with pytest.raises(NotEntitled):
            await parts.job(parts.issuer.token(repository="acme/other"))


@pytest.mark.parametrize(("method", "platform"), [("k8s_token", "other"), ("oidc", "prod"), ("x", "y")])
async def test_a_platform_nobody_set_up_is_not_asked(tmp_path: Path, method: str, platform: str) -> None:
    """Nothing leaves this server."""
    async with direct_parts(tmp_path) as parts:
        with pytest.raises(NotProven, match="is taken from"):
            await parts.attest(parts.token(parts.pod()), method=method, platform=platform)
        assert parts.api.requests == []


async def test_a_request_without_its_key_is_refused(tmp_path: Path) -> None:
    """Before anybody is asked."""
    async with direct_parts(tmp_path) as parts:
        forged = bytearray(request(new_key()))
        forged[-1] ^= 1
        for csr in (b"", b"x", bytes(forged)):
            with pytest.raises(Malformed):
                await parts.attest(parts.token(parts.pod()), csr=csr)
        assert parts.api.requests == []


async def test_a_platform_an_operator_banned_gives_nothing(tmp_path: Path) -> None:
    """Evicted it begins anew: everything it had has ended."""
    async with direct_parts(tmp_path) as parts:
        pod, now = parts.pod(), parts.server.clock.now()
        one, _ = await parts.attest(parts.token(pod))
        await parts.server.admission.send_away("~k8s_token/prod", NodeState.EVICTED, now)
        assert await state(parts, one.instance) is State.ENDED
        again, _ = await parts.attest(parts.token(pod))
        assert again.instance != one.instance
        await parts.server.admission.send_away("~k8s_token/prod", NodeState.BANNED, now)
        with pytest.raises(Banned):
            await parts.attest(parts.token(pod))
        assert await state(parts, again.instance) is State.ENDED
