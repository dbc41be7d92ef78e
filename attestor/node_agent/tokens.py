"""Tokens for the processes of this machine: JWT- and WIT-SVIDs, kept for the same question asked again.

The key of a WIT-SVID is made here, a new one with each token. A JWT-SVID has no serial and nobody can take it back, so
one of an identity that has an end is short (traps 34): what is bound to a task is checked here to live no longer than
`TASK_TOKEN`, and is kept for the process it was made for.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.errors import NotEntitled
from attestor.node_agent.held import Held, Token, Wit, hinted
from attestor.node_agent.upstream import Issuer
from attestor.wire.attestation import Identity
from attestor.wire.node import JwtItem, WitItem
from attestor.wire.wit import WitEntry
from ca.errors import Malformed, Problem
from ca.runtime.clock import Clock
from ca.spiffe import jose, jwtsvid
from ca.spiffe.id import SpiffeId
from ca.spiffe.jwtsvid import JwtSvid
from ca.spiffe.witsvid import WitSvid

MOST_TOKENS = 64
"""JWT-SVIDs kept per process."""
TASK_TOKEN = timedelta(seconds=60)
"""How long a token of an identity that has an end may live."""


class Tokens:
    """Asks `issuer`, and remembers in what is held."""

    def __init__(self, issuer: Issuer, clock: Clock) -> None:
        self._issuer = issuer
        self._clock = clock

    async def jwt(self, held: Held, spiffe_id: SpiffeId, audience: tuple[str, ...]) -> str:
        """A JWT-SVID of `held`; the one it got before while that is before half its life.

        Raises:
            NotEntitled: `spiffe_id` is not one of its identities.
            Unavailable: the server does not answer.
        """
        now, key = self._clock.now(), (spiffe_id, audience)
        identity = held.entitled(spiffe_id)
        if identity is None or (identity.ends_at is not None and now >= identity.ends_at):
            raise NotEntitled("the calling process has no such identity")
        known = held.tokens.get(key)
        if known is not None and known.is_fresh(now) and not self._is_taken_back(known.text):
            return known.text
        text = await self._issuer.sign_jwt(JwtItem(attestation=held.attestation(), id=spiffe_id, audience=audience))
        svid = jwtsvid.parse_unverified(text)
        _check(svid, identity, audience)
        if held.entitled(spiffe_id) is None:  # it was withdrawn while the server signed
            raise NotEntitled("the calling process has no such identity any more")
        while len(held.tokens) >= MOST_TOKENS:
            del held.tokens[next(iter(held.tokens))]
        held.tokens[key] = Token(text=text, made_at=now, half_life=now + (svid.expires_at - now) / 2)
        return text

    async def wits(self, held: Held, wanted: SpiffeId | None) -> tuple[WitEntry, ...]:
        """A WIT-SVID of each identity of `held`, or only of `wanted`; a new one when it is past half its life.

        Raises:
            NotEntitled: `wanted` is not one of its identities, or the server gives it none.
            Unsupported: the server doesn't sign WIT-SVIDs.
            Unavailable: the server does not answer, and nothing that is held is valid any more.
        """
        trouble: Problem | None = None
        async with held.signing_wits:
            held.wits_owed = False
            for identity in held.identities:
                if wanted in {None, identity.id} and self._is_due(held.wits.get(identity.id), self._clock.now()):
                    try:
                        await self._sign_wit(held, identity)
                    except Problem as problem:
                        trouble, held.wits_owed = problem, held.wits_owed or problem.retryable
        entries = tuple(
            WitEntry(id=identity.id, token=wit.text, key=wit.key, hint=hint)
            for identity, hint in hinted(held.identities)
            if wanted in {None, identity.id} and (wit := self._valid(held, identity.id)) is not None
        )
        if not entries:
            raise trouble or NotEntitled("the calling process has no such identity")
        return entries

    def wits_due(self, held: Held, now: datetime) -> bool:
        """Whether one that was handed over is to be replaced, or could not be had when it was asked for."""
        return held.wits_owed or any(self._is_due(wit, now) for wit in held.wits.values())

    def _is_taken_back(self, token: str) -> bool:
        """Whether its key is withdrawn; it may have been signed before that and kept after all others were dropped."""
        header, _ = jose.take_apart(token, "a JWT-SVID")
        return str(header.get("kid")) in {key_id.hex() for key_id in self._issuer.withdrawn}

    def _is_due(self, wit: Wit | None, now: datetime) -> bool:
        return wit is None or not wit.is_fresh(now) or self._is_withdrawn(wit)

    def _is_withdrawn(self, wit: Wit) -> bool:
        return wit.authority in {key_id.hex() for key_id in self._issuer.withdrawn}

    def _valid(self, held: Held, spiffe_id: SpiffeId) -> Wit | None:
        wit = held.wits.get(spiffe_id)
        return wit if wit is not None and self._clock.now() < wit.not_after else None

    async def _sign_wit(self, held: Held, identity: Identity) -> None:
        """Make a key, have it named, and keep both."""
        key = ec.generate_private_key(ec.SECP256R1())
        spki = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        item = WitItem(attestation=held.attestation(), id=identity.id, public_key=spki)
        token = await self._issuer.sign_wit(item)
        now, svid = self._clock.now(), WitSvid.of(token, key)
        header, claims = jose.take_apart(token, "a WIT-SVID")
        if svid.id != identity.id or jose.instance_of(claims) != held.instance:
            raise Malformed("the attestor server signed another token than the one asked for")
        if identity.ends_at is not None and svid.expires_at > identity.ends_at:
            raise Malformed(f"the attestor server signed a token for `{svid.id}` that outlives it")
        if held.is_alive() and not held.barred and held.entitled(identity.id) is not None:
            held.wits[identity.id] = Wit(
                text=token,
                key=svid.key_jwk(),
                authority=str(header["kid"]),
                made_at=now,
                half_life=now + (svid.expires_at - now) / 2,
                not_after=svid.expires_at,
            )


def _check(svid: JwtSvid, identity: Identity, audience: tuple[str, ...]) -> None:
    """It must be the token that was asked for. Raises Malformed."""
    if svid.id != identity.id or set(svid.audience) != set(audience):
        raise Malformed("the attestor server signed another token than the one asked for")
    if identity.ends_at is None:
        return
    begin = svid.claims.get("iat", 0)
    if svid.expires_at > identity.ends_at or svid.expires_at.timestamp() - begin > TASK_TOKEN.total_seconds():
        raise Malformed("the attestor server signed a token that lives longer than one of a task may")
