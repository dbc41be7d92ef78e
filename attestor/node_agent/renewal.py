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
from attestor.methods.workload.proc import CallerGone
from attestor.node_agent.attest import Attestor
from attestor.node_agent.entitlements import Entitlements
from attestor.node_agent.held import Held, Leaf
from attestor.node_agent.holdings import Holdings
from attestor.node_agent.lists import Lists
from attestor.node_agent.peer import Peer
from attestor.node_agent.tokens import Tokens
from attestor.node_agent.upstream import Issuer
from attestor.wire.attestation import Identity
from attestor.wire.node import MOST_ITEMS, Refusal, Signed, SignItem
from ca.errors import Malformed, Problem, Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import SpiffeId
from ca.spiffe.x509svid import X509Svid

MOST_PERSONAL = 64
"""Identities of one process besides those of the rules; what a server gives beyond is left out."""

_log = log.get(__name__)


class Renewal:
    """Gives the processes of this machine their identities."""

    def __init__(self, holdings: Holdings, attestor: Attestor, issuer: Issuer, clock: Clock) -> None:
        self._holdings = holdings
        self._attestor = attestor
        self._issuer = issuer
        self._entitlements = Entitlements(issuer)
        self._clock = clock
        self.lists = Lists(issuer)
        self.tokens = Tokens(issuer, clock)

    @asynccontextmanager
    async def admitted(self, peer: Peer, *, anybody: bool = False) -> AsyncIterator[Held]:
        """What the process of `peer` holds, with leaves for what it is entitled to, for as long as the block runs.

        With `anybody` a process that is entitled to nothing is let in too: it holds nothing, is never journalled, and
        may be told what everybody may know.

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
                    lineage = self._holdings.lineage(findings)
                    inherited = self._holdings.inherited(findings)
                    if (held.findings, held.ancestors, held.inherited) != (findings, lineage, inherited):
                        if held.findings is None or not held.findings.same_as(findings):
                            held.forget()
                        held.findings, held.version = findings, ""
                        held.ancestors, held.inherited = lineage, inherited
                    try:
                        await self._provide(held)
                    except NotEntitled:
                        if not anybody:
                            raise
                yield held
        finally:
            peer.close()  # nothing is done when it is held

    async def tick(self, now: datetime) -> None:
        """Drop what has run out, then ask the server for what is due. Raises Unavailable when it doesn't answer."""
        self._holdings.look()
        listed = self.lists.look(now)
        used = [held for held in self._holdings if held.users and held.counter and held.findings]
        for held in used:
            self._drop_expired(held, now)
            self._descend(held)
            if (listed and held.list_users) or (held.wit_users and self.tokens.wits_due(held, now)):
                held.change.announce()
        changed = [held for held in used if held.version != self._entitlements.version(held.instance)]
        try:
            await self._entitle(changed)
            for held in changed:
                await self._settled_again(held)
            for first in range(0, len(used), MOST_ITEMS):  # in pieces: keys are made here, on the loop's own time
                await self._sign(used[first : first + MOST_ITEMS], now)
        finally:
            _say_so(changed)

    def _descend(self, held: Held) -> None:
        """What it has by its parents ends with them, also while its call is open."""
        if held.findings is not None and held.inherited:
            inherited = held.inherited & self._holdings.inherited(held.findings)
            if inherited != held.inherited:
                held.inherited, held.version = inherited, ""

    def look_again(self, held: Held) -> None:
        """Whether it is still the process it was when it was attested: asked before every later message (WL-18).

        Raises:
            CallerGone: it ended, or became another program or another user's; what it was given is taken away.
        """
        held.check()
        if held.findings is None:
            return
        try:
            self._attestor.look_again(held.name.pid, held.findings)
        except CallerGone:
            held.forget()
            held.findings, held.pending = None, False
            held.change.announce()
            raise

    async def token(self, held: Held, spiffe_id: SpiffeId, audience: tuple[str, ...]) -> str:
        """A JWT-SVID of `held`, as `Tokens.jwt` gives it."""
        return await self.tokens.jwt(held, spiffe_id, audience)

    async def _provide(self, held: Held) -> None:
        """Entitle, journal, sign: in this order."""
        _refuse_barred(held)
        now = self._clock.now()
        self._drop_expired(held, now)
        changed = [held] if held.version != self._entitlements.version(held.instance) else []
        try:
            await self._entitle(changed)
            if not held.identities:
                raise NotEntitled("no identity rule of this node matches the calling process")
            await self._settle(held)
            held.check()
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
        asked = [(held, held.findings, self._entitlements.version(held.instance)) for held in helds]
        found = await self._entitlements.of([held.attestation() for held in helds])
        now = self._clock.now()
        for (held, findings, version), identities in zip(asked, found, strict=True):
            if held.findings is not findings:
                continue  # the answer is about what it was
            held.keep_only(_in_order(held, identities, now))
            held.version = version
            held.tokens.clear()
            held.pending = True

    async def _settle(self, held: Held) -> None:
        """Journal what its identities are bound to; who is another instance by that is asked about again."""
        if self._holdings.bind(held):
            await self._entitle([held])
        if not held.identities:
            raise NotEntitled("no identity rule of this node matches the calling process")
        await self._holdings.settle(held)
        if held.findings is None:
            raise CallerGone("the container, pod or unit of the calling process has ended")

    async def _settled_again(self, held: Held) -> None:
        """The same for one that stays: what goes wrong with it is its own affair and is tried again."""
        try:
            if held.identities and held.findings is not None and not held.barred:
                await self._settle(held)
        except Problem as problem:
            held.version = ""
            _log.warning("a process can't be bound anew", instance=held.instance, error=problem)

    async def _sign(self, helds: Iterable[Held], now: datetime) -> None:
        wanted = [
            (held, identity.id, ec.generate_private_key(ec.SECP256R1()))
            for held in helds
            if not held.barred and held.counter and held.findings
            for identity in held.identities
            if self._is_due(held.leaves.get(identity.id), now)
        ]
        items = [
            SignItem(attestation=held.attestation(), id=spiffe_id, public_key=_spki(key))
            for held, spiffe_id, key in wanted
        ]
        answers = zip(wanted, items, await self._issuer.sign(items), strict=True)
        for (held, spiffe_id, key), item, result in answers:
            if item.attestation.instance != held.instance:
                continue  # it was signed for what it was
            if isinstance(result, Refusal):
                self._refused(held, spiffe_id, result)
            elif held.is_alive() and (identity := held.entitled(spiffe_id)) is not None:
                self._take(held, identity, key, result)

    @staticmethod
    def _take(held: Held, identity: Identity, key: ec.EllipticCurvePrivateKey, signed: Signed) -> None:
        """Hold what was signed; what is not what was asked for costs this identity, and nobody else theirs."""
        try:
            held.leaves[identity.id] = _leaf(held, identity, key, signed)
        except (Malformed, Untrusted) as problem:
            _log.error(
                "the server signed another certificate than was asked for",
                instance=held.instance,
                identity=str(identity.id),
                error=problem,
            )
        else:
            held.change.announce()

    def _is_due(self, leaf: Leaf | None, now: datetime) -> bool:
        if leaf is None or not leaf.is_fresh(now):
            return True
        return leaf.authority in self._issuer.withdrawn or self.lists.name(leaf)

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
        """What has run out, and everything of an identity whose end has come."""
        left = tuple(one for one in held.identities if one.ends_at is None or now < one.ends_at)
        gone = len(left) < len(held.identities) and held.keep_only(left)
        for kept in (held.leaves, held.wits):
            for spiffe_id in [spiffe_id for spiffe_id, one in kept.items() if now >= one.not_after]:
                del kept[spiffe_id]
                gone = True
        if gone:
            held.change.announce()


def _in_order(held: Held, identities: Sequence[Identity], now: datetime) -> tuple[Identity, ...]:
    """Those of the rules in their order, the first is the default one (WL-17); then its personal ones, a few."""
    lasting = [one for one in identities if one.ends_at is None]
    ending = [one for one in identities if one.ends_at is not None and now < one.ends_at]
    if len(ending) > MOST_PERSONAL:
        _log.warning("a process has too many personal identities", instance=held.instance, identities=len(ending))
    return (*lasting, *ending[:MOST_PERSONAL])


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


def _leaf(held: Held, identity: Identity, key: ec.EllipticCurvePrivateKey, signed: Signed) -> Leaf:
    """Check that the server signed what was asked for. Raises Malformed or Untrusted."""
    key_der = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    svid = X509Svid.parse(signed.chain, key_der)
    if (svid.id, svid.instance) != (identity.id, held.instance):
        raise Malformed(f"the attestor server signed a certificate for `{svid.id}`, asked for was `{identity.id}`")
    if identity.ends_at is not None and svid.not_after > identity.ends_at:
        raise Malformed(f"the attestor server signed a certificate for `{svid.id}` that outlives it")
    try:
        authority = svid.chain[0].extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound as error:
        raise Malformed(f"the certificate of `{svid.id}` does not say who signed it") from error
    return Leaf(
        chain=signed.chain,
        key=key_der,
        authority=authority or b"",
        serial=svid.chain[0].serial_number,
        not_before=svid.not_before,
        not_after=svid.not_after,
    )
