"""What a process is given, and when it is given anew.

    admit(peer)   who calls: look, ask the server, journal, have leaves signed
    tick(now)     who stays: rules that changed, leaves past half their life, leaves that have run out

The order in `admit` is law: an instance is on the disk and in the live set before the server signs for it, and the
process is alive after that. Leaves are replaced for processes that have a call open; one that only fetched once gets a
new one when it asks again. While the server can't be reached what is held goes on being served until it expires
(traps 3.3 of SPIRE's users); nothing is given that the server did not sign.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.errors import InstanceEnded, NotEntitled
from attestor.node_agent.attest import Attestor
from attestor.node_agent.entitlements import Entitlements
from attestor.node_agent.held import Held, Leaf, Token
from attestor.node_agent.holdings import Holdings
from attestor.node_agent.peer import Peer
from attestor.node_agent.upstream import Issuer
from attestor.wire.node import MOST_ITEMS, JwtItem, Refusal, Signed, SignItem
from ca.errors import Malformed, Problem, Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.spiffe import jwtsvid
from ca.spiffe.id import SpiffeId
from ca.spiffe.x509svid import X509Svid

MOST_TOKENS = 64
"""JWT-SVIDs kept per process."""

_log = log.get(__name__)


class Renewal:
    """Gives the processes of this machine their identities."""

    def __init__(self, holdings: Holdings, attestor: Attestor, issuer: Issuer, clock: Clock) -> None:
        self._holdings = holdings
        self._attestor = attestor
        self._issuer = issuer
        self._entitlements = Entitlements(issuer)
        self._clock = clock

    @asynccontextmanager
    async def admitted(self, peer: Peer) -> AsyncIterator[Held]:
        """What the process of `peer` holds, with leaves for what it is entitled to, for as long as the block runs.

        Raises:
            CallerGone: it ended.
            NotEntitled: no rule gives it an identity, or its instance was ended.
            Unavailable: the server or the journal does not answer, and what is held is not enough.
        """
        try:
            findings = await self._attestor.attest(peer)
            with self._holdings.holding(peer) as held:
                async with held.admitting:
                    held.check()
                    lineage = self._holdings.lineage(findings.lineage)
                    if (held.findings, held.ancestors) != (findings, lineage):
                        if held.findings is None or not held.findings.same_as(findings):
                            held.forget()
                        held.findings, held.ancestors, held.rules_version = findings, lineage, ""
                    await self._provide(held)
                yield held
        finally:
            peer.close()  # nothing is done when it is held

    async def tick(self, now: datetime) -> None:
        """Drop what has run out, then ask the server for what is due. Raises Unavailable when it doesn't answer."""
        used = [held for held in self._holdings if held.users and held.counter and held.findings]
        for held in used:
            self._drop_expired(held, now)
        changed = [held for held in used if held.rules_version != self._issuer.rules_version]
        try:
            await self._entitle(changed)
            for first in range(0, len(used), MOST_ITEMS):  # in pieces: keys are made here, on the loop's own time
                await self._sign(used[first : first + MOST_ITEMS], now)
        finally:
            _say_so(changed)

    async def token(self, held: Held, spiffe_id: SpiffeId, audience: tuple[str, ...]) -> str:
        """A JWT-SVID of `held`; the one it got before while that is before half its life.

        Raises:
            NotEntitled: `spiffe_id` is not one of its identities.
            Unavailable: the server does not answer.
        """
        if held.entitled(spiffe_id) is None:
            raise NotEntitled("the calling process has no such identity")
        now, key = self._clock.now(), (spiffe_id, audience)
        known = held.tokens.get(key)
        if known is not None and now < known.half_life:
            return known.text
        text = await self._issuer.sign_jwt(JwtItem(attestation=held.attestation(), id=spiffe_id, audience=audience))
        svid = jwtsvid.parse_unverified(text)
        if svid.id != spiffe_id or set(svid.audience) != set(audience):
            raise Malformed("the attestor server signed another token than the one asked for")
        while len(held.tokens) >= MOST_TOKENS:
            del held.tokens[next(iter(held.tokens))]
        held.tokens[key] = Token(text=text, half_life=now + (svid.expires_at - now) / 2)
        return text

    async def _provide(self, held: Held) -> None:
        """Entitle, journal, sign: in this order."""
        _refuse_barred(held)
        now = self._clock.now()
        self._drop_expired(held, now)
        changed = [held] if held.rules_version != self._issuer.rules_version else []
        try:
            await self._entitle(changed)
            if not held.identities:
                raise NotEntitled("no identity rule of this node matches the calling process")
            await self._holdings.settle(held)
            await self._sign([held], now)
        except Problem as problem:
            if not (problem.retryable and held.leaves):
                raise
            _log.warning("served with what is held", instance=held.instance, error=problem)
        finally:
            _say_so(changed)
        _refuse_barred(held)
        if not held.leaves:
            raise Unavailable("the attestor server signed nothing for the calling process")

    async def _entitle(self, helds: Sequence[Held]) -> None:
        """Ask what they are entitled to; what is no longer theirs goes at once, and `_say_so` tells of it."""
        version = self._issuer.rules_version
        looked = [held.findings for held in helds]
        found = await self._entitlements.of([held.attestation() for held in helds])
        for held, findings, identities in zip(helds, looked, found, strict=True):
            if held.findings is not findings:
                continue  # the answer is about what it was
            held.identities, held.rules_version = identities, version
            mine = {identity.id for identity in held.identities}
            held.tokens.clear()
            for gone in held.leaves.keys() - mine:
                del held.leaves[gone]
            held.pending = True

    async def _sign(self, helds: Iterable[Held], now: datetime) -> None:
        wanted = [
            (held, identity.id, ec.generate_private_key(ec.SECP256R1()))
            for held in helds
            if not held.barred
            for identity in held.identities
            if self._is_due(held.leaves.get(identity.id), now)
        ]
        items = [
            SignItem(attestation=held.attestation(), id=spiffe_id, public_key=_spki(key))
            for held, spiffe_id, key in wanted
        ]
        for (held, spiffe_id, key), result in zip(wanted, await self._issuer.sign(items), strict=True):
            if isinstance(result, Refusal):
                self._refused(held, spiffe_id, result)
            elif held.is_alive() and held.entitled(spiffe_id) is not None:
                held.leaves[spiffe_id] = _leaf(held, spiffe_id, key, result)
                held.change.announce()

    def _is_due(self, leaf: Leaf | None, now: datetime) -> bool:
        return leaf is None or now >= leaf.half_life or leaf.authority in self._issuer.withdrawn

    def _refused(self, held: Held, spiffe_id: SpiffeId, refusal: Refusal) -> None:
        _log.warning(
            "the server signed no certificate",
            instance=held.instance,
            identity=str(spiffe_id),
            code=refusal.code,
            reason=refusal.reason,
        )
        if refusal.code == InstanceEnded.code:
            self._holdings.bar(frozenset({held.instance}))

    @staticmethod
    def _drop_expired(held: Held, now: datetime) -> None:
        expired = [spiffe_id for spiffe_id, leaf in held.leaves.items() if now >= leaf.not_after]
        for spiffe_id in expired:
            del held.leaves[spiffe_id]
        if expired:
            held.change.announce()


def _say_so(changed: Iterable[Held]) -> None:
    """What changed is whole now, or will not be: whoever waits may look."""
    for held in changed:
        if held.pending:
            held.pending = False
            held.change.announce()


def _refuse_barred(held: Held) -> None:
    if held.barred:
        raise NotEntitled("the instance of the calling process was ended: it gets no identity any more")


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _leaf(held: Held, spiffe_id: SpiffeId, key: ec.EllipticCurvePrivateKey, signed: Signed) -> Leaf:
    """Check that the server signed what was asked for. Raises Malformed or Untrusted."""
    key_der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    svid = X509Svid.parse(signed.chain, key_der)
    if (svid.id, svid.instance) != (spiffe_id, held.instance):
        raise Malformed(f"the attestor server signed a certificate for `{svid.id}`, asked for was `{spiffe_id}`")
    authority = svid.chain[0].extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return Leaf(
        chain=signed.chain,
        key=key_der,
        authority=authority or b"",
        not_before=svid.not_before,
        not_after=svid.not_after,
    )
