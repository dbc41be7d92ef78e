"""Tokens of an OAuth server: exchange and refresh by the letter, and every answer that is no answer."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from broker.engines.oauth.answers import TokenRefused
from broker.engines.protocol import Lent
from broker.errors import NotPossible, NotYet, TargetDown
from broker.model.role import NewAccess
from ca.errors import Conflict, Malformed, NotFound, Unavailable
from ca.runtime.secret import Secret
from fakes.oauth_ground import CLOCK, ground, settings
from fakes.oauth_server import ACCESS, EXCHANGE, JWT, METADATA, FakeOAuth, fake_oauth

MARK = "hunter2-hunter2"


async def test_a_token_is_exchanged_for_who_we_are() -> None:
    """RFC 8693, 2.1: our JWT-SVID, made for the server's issuer, for a token of theirs."""
    async with ground(judge=lambda token: token.startswith("svid-for-")) as there:
        issued = await there.create(
            grant="token_exchange", scope=["read"], audience="orders", resource=["https://api.example.org/orders"]
        )
        sent = there.last
        assert (sent["grant_type"], sent["subject_token_type"], sent["requested_token_type"]) == (EXCHANGE, JWT, ACCESS)
        assert sent["subject_token"] == f"svid-for-{there.server.issuer}"
        assert (sent["scope"], sent["audience"], sent["resource"]) == (
            "read",
            "orders",
            "https://api.example.org/orders",
        )
        assert issued.secret["access_token"].reveal() in there.server.active
        assert (issued.fields["token_type"], issued.fields["scope"]) == ("Bearer", "read")
        await there.create("sj_a_2", grant="token_exchange", subject_audience="sts", requested_token_type="jwt")
        assert (there.last["subject_token"], there.last["requested_token_type"]) == ("svid-for-sts", JWT)
        there.server.judge = lambda _: False
        with pytest.raises(TokenRefused, match="invalid_request"):
            await there.create("sj_a_3", grant="token_exchange")


async def test_the_client_proves_itself_by_a_key_of_its_own() -> None:
    """RFC 7523: signed for the issuer alone, once, for a minute; the key is the one its owner was given."""
    async with ground() as there:
        keys = KeySet.import_key_set(json.loads(await there.engine.authority()))
        await there.create("sj_a_1")
        first = there.last["client_assertion"]
        await there.create("sj_a_2")
        read = [jwt.decode(one, keys, algorithms=["ES256"]).claims for one in (first, there.last["client_assertion"])]
        assert {(one["iss"], one["sub"], one["aud"]) for one in read} == {("sojourn", "sojourn", there.server.issuer)}
        assert read[0]["jti"] != read[1]["jti"]
        assert all(one["exp"] - one["iat"] == 60 for one in read)
        assert "d" not in json.loads(await there.engine.authority())["keys"][0]


async def test_or_by_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a header, form-encoded (RFC 6749, 2.3.1), never in the body."""
    monkeypatch.setenv("SECRET_OF_A_TEST", "a:b c%é")
    said = {"authentication": "client_secret_basic", "client_secret": "env:SECRET_OF_A_TEST"}
    async with ground(said=said) as there:
        await there.create()
        sent = there.server.headers[-1]["Authorization"].removeprefix("Basic ")
        assert base64.b64decode(sent).decode() == "sojourn:a%3Ab+c%25%C3%A9"
        assert "client_assertion" not in there.last
        with pytest.raises(NotPossible):
            await there.engine.authority()


async def test_a_refresh_token_stays_inside() -> None:
    """What was consented to is used and never handed over; another one is kept before the token leaves."""
    async with ground(rotates=True) as there:
        with pytest.raises(NotFound, match="sojourn secret put partner/readonly"):
            await there.create(grant="refresh_token")
        await there.vault.write("value/partner/readonly", Secret("refresh-1"))
        for name in ("sj_a_1", "sj_a_2"):
            issued = await there.create(name, grant="refresh_token")
            assert set(issued.secret) == {"access_token"}
            assert there.vault.values["value/partner/readonly"][-1].reveal() == there.server.refresh
        assert len(there.vault.values["value/partner/readonly"]) == 3


async def test_a_refresh_token_that_came_unasked_is_revoked_with_the_token() -> None:
    """It rests sealed with it, and nobody is told it."""
    async with ground() as there:
        given = {"access_token": "one", "token_type": "bearer", "expires_in": 60, "refresh_token": "two"}
        there.server.answer("/token", given)
        issued = await there.create()
        assert "two" not in repr(issued) + json.dumps(dict(issued.fields))
        await there.end()
        sent = [fields for path, fields in there.server.asked if path == "/revocation"]
        assert [(one["token"], one["token_type_hint"]) for one in sent] == [
            ("two", "refresh_token"), ("one", "access_token"),
        ]  # fmt: skip
        assert there.vault.values == {}


@pytest.mark.parametrize("path", ["", "/tenant/one"])
async def test_where_it_answers_is_asked_by_rfc_8414(path: str) -> None:
    """The well-known part goes before the issuer's own path; it is asked once."""
    async with ground(path) as there:
        there.server.answer(
            METADATA + path, {**there.server.metadata(), "token_endpoint": _root(there.server) + "/token"}
        )
        await there.create("sj_a_1")
        await there.create("sj_a_2")
        assert [asked for asked, _ in there.server.asked if "well-known" in asked] == [METADATA + path]


def _root(server: FakeOAuth) -> str:
    return "/".join(server.issuer.split("/")[:3])


async def test_it_is_gone_when_the_server_says_so() -> None:
    """Not when it fails to, not when it goes on calling it active; a token that ended by itself needs no word."""
    async with ground() as there:
        issued = await there.create()
        token = issued.secret["access_token"].reveal()
        for status in (503, 400):
            there.server.answer("/revocation", {"error": "unsupported_token_type"}, status)
            with pytest.raises(NotYet):
                await there.end()
        there.server.answer("/introspection", {"active": True})
        with pytest.raises(NotYet, match="still active"):
            await there.end()
        there.server.answer("/introspection", {"active": "no"})
        with pytest.raises(Unavailable):
            await there.end()
        await there.end()
        assert token not in there.server.active
        await there.end()
        assert there.vault.values == {}


async def test_without_introspection_its_word_is_taken() -> None:
    """200 is what RFC 7009 has."""
    async with ground(offers=frozenset({"revocation"})) as there:
        await there.create()
        await there.end()
        assert there.server.active == set()


async def test_a_token_that_lives_longer_than_it_may_is_not_handed_over() -> None:
    """It is revoked, and the operator is told what to change."""
    async with ground(life=3600) as there:
        with pytest.raises(Conflict, match="`ttl`"):
            await there.create()
        assert there.server.active == set()
        assert there.vault.values == {}
    async with ground(life=3600, said={"longest_token": "2h"}) as there:
        await there.create()
        assert there.engine.guarantee(there.role).if_down_within == 7200


async def test_without_revocation_it_ends_by_itself_and_rests_nowhere() -> None:
    """The guarantee says when; nothing is asked at the end."""
    async with ground(said={"ends": "at-expiry"}) as there:
        assert there.engine.guarantee(there.role).new_access is NewAccess.AT_EXPIRY
        await there.create()
        await there.end()
        assert there.vault.values == {}
        assert {path for path, _ in there.server.asked} == {METADATA, "/token"}


async def test_how_it_ends_is_decided_when_it_is_asked_for() -> None:
    """Other settings later, by a reload or a restart: what was to be revoked is revoked, and nothing of it rests."""
    async with ground() as there:
        token = (await there.create()).secret["access_token"].reveal()
        handle = there.engine.plan(there.role, "sj_a_1")
        there.engine._settings = settings(there.server, ends="at-expiry")
        await there.engine.end_access(handle)
        await there.engine.clean_up(handle)
        assert token not in there.server.active
        assert there.vault.values == {}


async def test_the_same_name_is_asked_for_once() -> None:
    """A second token under it would outlive the first one's ending."""
    async with ground() as there:
        await there.create()
        with pytest.raises(Conflict):
            await there.create()
        assert len(there.server.active) == 1


async def test_a_server_that_is_not_there() -> None:
    """Nothing was sent, or nobody knows."""
    async with ground() as there:
        there.engine._settings = there.engine._settings.model_copy(update={"issuer": "https://127.0.0.1:1"})
        there.engine._server.settings = there.engine._settings
        with pytest.raises(TargetDown):
            await there.create()


async def test_what_is_not_well_is_found_by_a_check() -> None:
    """Each with what its owner can do; what was tried is ended."""
    async with ground() as there:
        there.server.answer(METADATA, {**there.server.metadata(), "token_endpoint_auth_methods_supported": ["none"]})
        there.server.answer("/token", {"access_token": "eyJh.eyJi.c", "token_type": "Bearer", "expires_in": 60})
        found = {one.name: one for one in await there.engine.check([there.role], "sj_a_")}
        assert [name for name, one in found.items() if not one.well] == [
            "authentication", "client key", "token of partner/readonly",
        ]  # fmt: skip
        assert "signature" in found["token of partner/readonly"].detail
        assert there.vault.values == {}
    async with ground(offers=frozenset()) as there:
        there.engine._lent = Lent(clock=CLOCK)
        found = {one.name: one for one in await there.engine.check([there.role], "sj_a_")}
        assert {name for name, one in found.items() if not one.well} >= {"vault", "revocation"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": None},
        {"token_endpoint": "https://a/token"},
        {"issuer": "http://login.example.org"},
        {"issuer": "https://login.example.org?x=1"},
        {"issuer": None, "token_endpoint": "https://a/token"},
        {"authentication": "client_secret_basic"},
        {"client_secret": "env:X"},
        {"client_secret": MARK, "authentication": "client_secret_basic"},
        {"client_id": ""},
        {"client_id": "a\nb"},
        {"ends": "at-expiry", "longest_token": "1h"},
    ],
)
async def test_settings_that_can_t_be_are_refused(wrong: dict[str, Any]) -> None:
    """Before anything is opened, and without a secret that stands in the wrong place."""
    async with fake_oauth() as server:
        with pytest.raises(ValueError) as refused:
            settings(server, **wrong)
        assert MARK not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"grant": "password"},
        {"scope": ["two words"]},
        {"scope": ['"']},
        {"resource": ["http://a"]},
        {"subject_audience": "a"},
        {"value": "key"},
        {"grant": "refresh_token", "value": "../key"},
        {"groups": ["a"]},
    ],
)
async def test_roles_that_can_t_be_are_refused(wrong: dict[str, Any]) -> None:
    """By the name of the role."""
    async with ground() as there:
        with pytest.raises(Malformed, match="partner/readonly"):
            await there.create(**wrong)
