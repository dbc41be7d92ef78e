"""`POST /v1/attest`, open to strangers: what it costs us is bounded before anything is looked at.

A caller has no certificate yet, so nothing but its address tells it from others. Each address has so many tries, and
only so many requests at a time may wait for a platform: a flood of invented tokens must not become a flood of reviews.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from attestor.server.direct import Asked, Direct, Issued
from attestor.wire import direct as wire
from ca.errors import Exhausted, Malformed
from ca.runtime.clock import Clock
from ca.runtime.rate import Rate, network_of
from ca.runtime.web import Call, Route
from ca.spiffe import der
from ca.spiffe.id import SpiffeId

LIMIT = 48 * 1024
MOST_AT_ONCE = 64
BURST, PER_SECOND = 30, 2.0
"""Tries of one address."""


class DirectApi:
    """One for each server process."""

    def __init__(self, direct: Direct, clock: Clock) -> None:
        self._direct, self._clock = direct, clock
        self._rate = Rate(clock, burst=BURST, per_second=PER_SECOND)
        self._waiting = 0

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        return (
            Route(
                "POST",
                wire.PATH,
                self.attest,
                summary="SVIDs for a platform's token and a certificate request, without a node agent",
                body=wire.AttestRequest,
                answer=wire.AttestAnswer,
                limit=LIMIT,
            ),
        )

    async def attest(self, call: Call) -> wire.AttestAnswer:
        """`POST /v1/attest`."""
        self._rate.take(network_of(call.request.remote))
        if self._waiting >= MOST_AT_ONCE:
            raise Exhausted("too many attestations at a time: try again later")
        asked = _asked(call.body)
        self._waiting += 1
        try:
            one, issued = await self._direct.attest(asked, now := self._clock.now())
        finally:
            self._waiting -= 1
        authority = self._direct.leaves.authority
        return wire.AttestAnswer(
            instance=one.instance,
            svids=[_svid(each) for each in issued],
            trust_domain=str(authority.trust_domain),
            bundle=json.loads(authority.bundle(now).to_jwks()),
            renew_by=_said(one.renew_by),
        )


def _asked(body: wire.AttestRequest) -> Asked:
    try:
        csr = base64.b64decode(body.csr, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("`csr` is not base64") from error
    return Asked(
        method=body.method,
        platform=body.platform,
        token=body.token,
        csr=csr,
        wanted=SpiffeId.parse(body.spiffe_id) if body.spiffe_id is not None else None,
        audience=tuple(dict.fromkeys(body.audience)),
    )


def _svid(issued: Issued) -> wire.DirectSvid:
    chain = [x509.load_der_x509_certificate(one) for one in der.split(issued.chain, "a chain", 8)]
    return wire.DirectSvid(
        spiffe_id=str(issued.entitled.id),
        hint=issued.entitled.hint,
        x509_svid=b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain).decode(),
        expires_at=_said(chain[0].not_valid_after_utc),
        jwt_svid=issued.jwt,
    )


def _said(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
