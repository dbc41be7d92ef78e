"""Every answer of an OAuth server that is no answer: refused, and nothing of it repeated, kept or handed over."""

from __future__ import annotations

from typing import Any

import pytest

from broker.engines.oauth.answers import TokenRefused
from broker.errors import OutcomeUnknown, TargetDown
from ca.errors import Problem, Unavailable
from fakes.oauth_ground import ground
from fakes.oauth_server import METADATA

MARK = "hunter2-hunter2"
GOOD = {"access_token": "one", "token_type": "Bearer", "expires_in": 60, "scope": "read"}
HOSTILE: dict[str, Any] = {
    "no object": ["one"],
    "no JSON": b"access_token=one",
    "a key twice": b'{"access_token": "one", "access_token": "two", "token_type": "Bearer", "expires_in": 60}',
    "no token": {**GOOD, "access_token": None},
    "a token with a line break": {**GOOD, "access_token": "one\r\nX: y"},
    "a token without an end": {**GOOD, "access_token": "x" * 20000},
    "an empty token": {**GOOD, "access_token": ""},
    "another kind of token": {**GOOD, "token_type": "DPoP"},
    "no kind": {key: value for key, value in GOOD.items() if key != "token_type"},
    "no life": {key: value for key, value in GOOD.items() if key != "expires_in"},
    "a life that is over": {**GOOD, "expires_in": 0},
    "a life without end": {**GOOD, "expires_in": 10**12},
    "a life that is no number": {**GOOD, "expires_in": True},
    "more than was asked": {**GOOD, "scope": "read admin"},
    "a scope that is no text": {**GOOD, "scope": ["read"]},
    "a refresh token that is none": {**GOOD, "refresh_token": 7},
    "too much": b" " * 200_000,
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_an_answer_that_is_none_is_refused(what: str) -> None:
    """And nothing of it is repeated, kept or handed over."""
    async with ground() as there:
        there.server.answer("/token", HOSTILE[what])
        with pytest.raises(Unavailable) as refused:
            await there.create()
        assert "one" not in str(refused.value).split()
        assert there.vault.values == {}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error": "invalid_scope", "error_description": MARK}, TokenRefused),
        (401, {"error": f"<{MARK}>"}, TokenRefused),
        (403, MARK.encode(), TokenRefused),
        (302, b"", TokenRefused),
        (429, {"error": "slow_down"}, Unavailable),
        (500, MARK.encode(), OutcomeUnknown),
        (503, b"", OutcomeUnknown),
    ],
)
async def test_a_refusal_says_its_code_and_nothing_else(status: int, body: Any, error: type[Problem]) -> None:
    """What a server writes into a description may be anything, also what it was sent."""
    async with ground() as there:
        there.server.answer("/token", body, status)
        with pytest.raises(error) as refused:
            await there.create()
        assert MARK not in f"{refused.value!r} {refused.value.__cause__!r}"


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": None},
        {"token_endpoint": "http://127.0.0.1/token"},
        {"token_endpoint": "https://user:pw@127.0.0.1/token"},
        {"token_endpoint": 7},
        {"revocation_endpoint": "file:///etc/passwd"},
    ],
)
async def test_metadata_that_can_t_be_relied_on_is_refused(changes: dict[str, Any]) -> None:
    """Another issuer's (RFC 8414, 3.3), or endpoints that are none: nothing is sent there."""
    async with ground() as there:
        there.server.answer(METADATA, {**there.server.metadata(), **changes})
        with pytest.raises(TargetDown):
            await there.create()
        assert [path for path, _ in there.server.asked] == [METADATA]
