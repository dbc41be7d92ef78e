"""Tokens for the processes of this machine: JWT-SVIDs, kept for the same question asked again.

A token has no serial and nobody can take it back, so one of an identity that has an end is short (traps 34): what is
bound to a task is checked here to live no longer than `TASK_TOKEN`, and is kept for the process it was made for.
"""

from __future__ import annotations

from datetime import timedelta

from attestor.errors import NotEntitled
from attestor.node_agent.held import Held, Token
from attestor.node_agent.upstream import Issuer
from attestor.wire.attestation import Identity
from attestor.wire.node import JwtItem
from ca.errors import Malformed
from ca.runtime.clock import Clock
from ca.spiffe import jwtsvid
from ca.spiffe.id import SpiffeId
from ca.spiffe.jwtsvid import JwtSvid

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
        if known is not None and now < known.half_life:
            return known.text
        text = await self._issuer.sign_jwt(JwtItem(attestation=held.attestation(), id=spiffe_id, audience=audience))
        svid = jwtsvid.parse_unverified(text)
        _check(svid, identity, audience)
        if held.entitled(spiffe_id) is None:  # it was withdrawn while the server signed
            raise NotEntitled("the calling process has no such identity any more")
        while len(held.tokens) >= MOST_TOKENS:
            del held.tokens[next(iter(held.tokens))]
        held.tokens[key] = Token(text=text, half_life=now + (svid.expires_at - now) / 2)
        return text


def _check(svid: JwtSvid, identity: Identity, audience: tuple[str, ...]) -> None:
    """It must be the token that was asked for. Raises Malformed."""
    if svid.id != identity.id or set(svid.audience) != set(audience):
        raise Malformed("the attestor server signed another token than the one asked for")
    if identity.ends_at is None:
        return
    begin = svid.claims.get("iat", 0)
    if svid.expires_at > identity.ends_at or svid.expires_at.timestamp() - begin > TASK_TOKEN.total_seconds():
        raise Malformed("the attestor server signed a token that lives longer than one of a task may")
