"""The signing authorities, the bundle they make up, and an operator's word about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from attestor.server.admin_api.said import said
from attestor.wire import admin as wire
from ca import store
from ca.authority import Authority
from ca.errors import Malformed
from ca.profiles.prepared import Kind
from ca.rotation import INITIAL, Rotation
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.runtime.database import Database, Transaction
from ca.runtime.web import Call, Route
from ca.spiffe import der
from ca.store import Anchor, Move, State, StoredAuthority

_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorities:
    """One for each server process."""

    authority: Authority
    rotation: Rotation
    database: Database
    clock: Clock

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        order, effect = wire.WithdrawRequest, wire.AuthorityEffect
        one = "/v1/authorities/{id}"
        return (
            Route("GET", "/v1/bundle", self.bundle, summary="The trust domain's bundle, in the SPIFFE form"),
            Route("GET", "/v1/authorities", self.authorities, summary="Authorities", answer=wire.AuthorityList),
            Route(
                "POST",
                "/v1/authorities/rotate",
                self.rotate,
                summary="A new authority in the place of the active one",
                body=wire.RotateRequest,
                answer=effect,
            ),
            Route(
                "POST", "/v1/servers/{id}/forget", self.forget, summary="A server is gone", body=order, answer=effect
            ),
            Route("POST", f"{one}/taint", self.taint, summary="Declare a key compromised", body=order, answer=effect),
            Route("POST", f"{one}/revoke", self.revoke, summary="Believe a key no longer", body=order, answer=effect),
        )

    async def bundle(self, call: Call) -> dict[str, object]:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/bundle`."""
        bundle = self.authority.bundle(self.clock.now())
        return {
            "trust_domain": str(bundle.trust_domain),
            "root_key_hash": self.authority.root_key_hash(self.clock.now()),
            "bundle": json.loads(bundle.to_jwks()),
        }

    async def authorities(self, call: Call) -> wire.AuthorityList:  # noqa: ARG002 -- the signature of a handler
        """`GET /v1/authorities`."""
        found = await self.database.read(store.everything)
        return wire.AuthorityList(
            server=self.authority.settings.server,
            sequence=self.authority.bundle(self.clock.now()).sequence or 0,
            authorities=[self._view(one) for one in found],
            anchors=_anchors(self.authority.anchors),
            warnings=list(self.authority.warnings),
        )

    async def rotate(self, call: Call) -> wire.AuthorityEffect:
        """`POST /v1/authorities/rotate`."""
        asked: wire.RotateRequest = call.body
        kind, now = Kind(asked.kind), self.clock.now()
        moves = self.rotation.rotating(kind) if asked.dry_run else await self._rotate(asked, kind, now)
        waits = [one for one in self._own() if (one.kind, one.state) == (kind, State.PREPARED)]
        signs_at = now if asked.at_once or kind is Kind.ISSUING or not (waits or asked.dry_run) else None
        if signs_at is None:
            told = waits[0].published_at if waits else now
            signs_at = max(now, told + self.authority.settings.wait)
        effect = await self._effect(moves, dry_run=asked.dry_run)
        return effect.model_copy(update={"signs_at": said(signs_at)})

    async def _rotate(self, asked: wire.RotateRequest, kind: Kind, now: datetime) -> Sequence[Move]:
        before = {one.key_id: one.state for one in self._own()}
        await (self.rotation.replace if asked.at_once else self.rotation.rotate)(kind, now)
        _log.warning("authority rotated by an operator", kind=str(kind), at_once=asked.at_once)
        return [
            Move(key_id=one.key_id, before=before.get(one.key_id, INITIAL), after=one.state)
            for one in self._own()
            if before.get(one.key_id) is not one.state
        ]

    def _own(self) -> Sequence[StoredAuthority]:
        return [one for one in self.authority.believed if one.server == self.authority.settings.server]

    async def taint(self, call: Call) -> wire.AuthorityEffect:
        """`POST /v1/authorities/{id}/taint`."""
        return await self._withdraw(call, "tainted")

    async def revoke(self, call: Call) -> wire.AuthorityEffect:
        """`POST /v1/authorities/{id}/revoke`."""
        return await self._withdraw(call, "revoked")

    async def forget(self, call: Call) -> wire.AuthorityEffect:
        """`POST /v1/servers/{id}/forget`."""
        asked: wire.WithdrawRequest = call.body
        moves = await self.rotation.forget(call.path("id"), self.clock.now(), dry_run=asked.dry_run)
        if not asked.dry_run:
            _log.warning("server forgotten by an operator", server=call.path("id"), authorities=len(moves))
        return await self._effect(moves, dry_run=asked.dry_run)

    async def _withdraw(self, call: Call, word: str) -> wire.AuthorityEffect:
        asked: wire.WithdrawRequest = call.body
        key_id, now = _key_id(call.path("id")), self.clock.now()
        do = self.rotation.taint if word == "tainted" else self.rotation.revoke
        moves = await do(key_id, now, dry_run=True)
        effect = await self._effect(moves, dry_run=asked.dry_run)
        if not asked.dry_run:
            await do(key_id, now)
            _log.warning(f"authority {word} by an operator", authority=key_id.hex(), with_it=len(effect.changes) - 1)
        return effect

    async def _effect(self, moves: Sequence[Move], *, dry_run: bool) -> wire.AuthorityEffect:
        now = self.clock.now()
        steps: dict[bytes, Move] = {}
        for move in moves:
            first = steps.get(move.key_id, move)
            steps[move.key_id] = Move(key_id=move.key_id, before=first.before, after=move.after)

        async def unit(tx: Transaction) -> tuple[dict[bytes, StoredAuthority], dict[Kind, int]]:
            counts: dict[Kind, int] = {}
            for key_id in steps:
                for kind, number in (await store.signed_by(tx, key_id, now)).items():
                    counts[kind] = counts.get(kind, 0) + number
            return {one.key_id: one for one in await store.everything(tx)}, counts

        known, counts = await self.database.read(unit)
        changes = [_moved(known[step.key_id], step) for step in steps.values()]
        return wire.AuthorityEffect(
            dry_run=dry_run,
            changes=changes,
            x509_svids=counts.get(Kind.LEAF, 0),
            jwt_svids=counts.get(Kind.JWT, 0),
            wit_svids=counts.get(Kind.WIT, 0),
            leaves_bundle=[one.key_id for one in changes if one.after == State.REVOKED and one.kind != Kind.ISSUING],
            signs_at=None,
        )

    def _view(self, one: StoredAuthority) -> wire.AuthorityView:
        return wire.AuthorityView(
            key_id=one.key_id.hex(),
            kind=one.kind,
            state=one.state,
            server=one.server,
            here=self.authority.holds(one),
            issuer_key_id=one.issuer_key_id.hex() if one.issuer_key_id else None,
            in_bundle=one.in_bundle,
            forced=one.forced,
            published_at=said(one.published_at),
            not_before=said(one.not_before),
            not_after=said(one.not_after),
            signed_until=said(one.signed_until),
        )


def _moved(one: StoredAuthority, step: Move) -> wire.AuthorityMove:
    return wire.AuthorityMove(
        key_id=one.key_id.hex(), kind=one.kind, server=one.server, before=step.before, after=step.after
    )


def _anchors(anchors: Sequence[Anchor]) -> list[wire.AnchorView]:
    by_certificate: dict[bytes, list[str]] = {}
    for one in anchors:
        by_certificate.setdefault(one.certificate, []).append(one.server)
    return [
        wire.AnchorView(
            key_id=der.key_id_of(certificate).hex(),
            servers=servers,
            subject=certificate.subject.rfc4514_string(),
            not_after=said(certificate.not_valid_after_utc),
        )
        for certificate, servers in (
            (x509.load_der_x509_certificate(content), servers) for content, servers in by_certificate.items()
        )
    ]


def _key_id(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if not 1 <= len(found) <= 64 or found.hex() != text:
        raise Malformed("an authority is named by its key id in lower-case hexadecimal: `sojourn ca show` lists them")
    return found
