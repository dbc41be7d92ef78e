"""Node agent ⇄ server: admission, the held stream, attestations and signatures, as values.

Everything a message says is parsed here into the vocabulary both ends share; what does not parse raises Malformed and
never reaches a decision. The node a message speaks for is not in it: the server takes it from the client certificate.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from attestor import selector
from attestor._proto import node_pb2 as pb
from attestor.instance import parse_id
from attestor.selector import Selectors
from attestor.wire import lists
from attestor.wire.attestation import (
    HIGHEST_COUNTER,
    Attestation,
    Entitlement,
    decode_attestation,
    decode_entitlement,
    encode_attestation,
    encode_entitlement,
)
from ca.errors import Malformed
from ca.spiffe.id import SpiffeId, TrustDomain

SERVICE = "sojourn.node.v1.Node"
ATTEST = f"/{SERVICE}/Attest"  # bidirectional stream, no client certificate
RENEW = f"/{SERVICE}/Renew"  # unary
FOLLOW = f"/{SERVICE}/Follow"  # bidirectional stream
RESOLVE = f"/{SERVICE}/Resolve"  # unary
SIGN = f"/{SERVICE}/Sign"  # unary
SIGN_JWT = f"/{SERVICE}/SignJwt"  # unary
SIGN_WIT = f"/{SERVICE}/SignWit"  # unary

NODE_PATH = "/sojourn/node/"
SERVER_PATH = "/sojourn/server"
MOST_ITEMS = 100
"""Of one Resolve or Sign."""
MOST_LIVE = 100_000
"""Instances of one node."""
MOST_AUDIENCES = 32
LONGEST_KEY = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What a node gets for its proof: its SVID (concatenated DER) and the bundle to go on with."""

    id: SpiffeId
    chain: bytes
    bundle: BundleDocument
    selectors: Selectors


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleDocument:
    """A trust domain's bundle in the SPIFFE JSON form; read it with `Bundle.from_jwks`."""

    trust_domain: TrustDomain
    document: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSet:
    """Every instance that lives on the node. `counter` rises with every change of the set, restarts included."""

    counter: int
    instances: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The whole state as far as it concerns one node; see node.proto for each field."""

    bundles: tuple[BundleDocument, ...]
    rules_version: str
    live_counter: int
    ended: frozenset[str]
    withdrawn_authorities: frozenset[bytes]
    beat: timedelta
    grace: timedelta
    revocation_lists: tuple[bytes, ...] = ()
    personal: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """Nothing changed, and the server is still there."""

    live_counter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignItem:
    """A leaf asked for; `public_key` is a SubjectPublicKeyInfo."""

    attestation: Attestation
    id: SpiffeId
    public_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A leaf with its chain, concatenated DER, leaf first."""

    chain: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One item was refused; the others of its batch were not touched by it."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtItem:
    """A token asked for."""

    attestation: Attestation
    id: SpiffeId
    audience: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WitItem:
    """A workload identity token asked for; `public_key` is a SubjectPublicKeyInfo: the key its `cnf` names."""

    attestation: Attestation
    id: SpiffeId
    public_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedJwt:
    """A token; not in repr."""

    token: str = field(repr=False)


def encode_begin(method: str, csr: bytes) -> pb.AttestRequest:
    """For a node: its first message."""
    return pb.AttestRequest(begin=pb.AttestBegin(method=method, csr=csr))


def encode_admission(admission: Admission) -> pb.Admission:
    """For a server."""
    return pb.Admission(
        spiffe_id=str(admission.id),
        chain=admission.chain,
        bundle=_bundle(admission.bundle),
        selectors=selector.texts(admission.selectors),
    )


def decode_admission(message: pb.Admission) -> Admission:
    """For a node. Raises Malformed."""
    return Admission(
        id=SpiffeId.parse(message.spiffe_id),
        chain=message.chain,
        bundle=_read_bundle(message.bundle),
        selectors=selector.parse_all(message.selectors),
    )


def encode_live(live: LiveSet) -> pb.FollowRequest:
    """For a node."""
    return pb.FollowRequest(live=pb.LiveSet(counter=live.counter, instances=sorted(live.instances)))


def decode_live(message: pb.FollowRequest) -> LiveSet:
    """For a server. Raises Malformed."""
    if not message.HasField("live"):
        raise Malformed("a node agent's report must hold its live set")
    if len(message.live.instances) > MOST_LIVE:
        raise Malformed(f"a node must not report more than {MOST_LIVE} instances")
    instances = frozenset(parse_id(one) for one in message.live.instances)
    if message.live.counter > HIGHEST_COUNTER:
        raise Malformed(f"the counter of a live set must not be above {HIGHEST_COUNTER}")
    return LiveSet(counter=message.live.counter, instances=instances)


def encode_followed(step: Update | Beat, held: Collection[bytes] = ()) -> pb.FollowResponse:
    """For a server; of the revocation lists those that the reader has in `held` are only named."""
    if isinstance(step, Beat):
        return pb.FollowResponse(beat=pb.Beat(live_counter=step.live_counter))
    carried, digests = lists.encode(step.revocation_lists, held)
    update = pb.Update(
        bundles=[_bundle(one) for one in step.bundles],
        rules_version=step.rules_version,
        live_counter=step.live_counter,
        ended=sorted(step.ended),
        withdrawn_authorities=sorted(step.withdrawn_authorities),
        beat_seconds=math.ceil(step.beat.total_seconds()),
        grace_seconds=int(step.grace.total_seconds()),
        revocation_lists=carried,
        revocation_list_digests=digests,
        personal=[pb.Personal(instance=one, version=step.personal[one]) for one in sorted(step.personal)],
    )
    return pb.FollowResponse(update=update)


def decode_followed(message: pb.FollowResponse, held: Iterable[bytes] = ()) -> Update | Beat:
    """For a node, which has the revocation lists `held` already. Raises Malformed."""
    match message.WhichOneof("step"):
        case "update":
            update = message.update
            return Update(
                bundles=tuple(_read_bundle(one) for one in update.bundles),
                rules_version=update.rules_version,
                live_counter=update.live_counter,
                ended=frozenset(parse_id(one) for one in update.ended),
                withdrawn_authorities=frozenset(update.withdrawn_authorities),
                beat=timedelta(seconds=update.beat_seconds),
                grace=timedelta(seconds=update.grace_seconds),
                revocation_lists=lists.decode(update.revocation_lists, update.revocation_list_digests, held),
                personal={parse_id(one.instance): one.version for one in update.personal},
            )
        case "beat":
            return Beat(live_counter=message.beat.live_counter)
        case _:
            raise Malformed("the attestor server sent a message of the node stream that has no meaning here")


def encode_resolve(attestations: Iterable[Attestation], *, explain: bool = False) -> pb.ResolveRequest:
    """For a node; with `explain` the answer tells why the other rules gave nothing."""
    return pb.ResolveRequest(attestations=[encode_attestation(one) for one in attestations], explain=explain)


def decode_resolve(message: pb.ResolveRequest) -> tuple[tuple[Attestation, ...], bool]:
    """For a server: who is asked for, and whether to explain. Raises Malformed."""
    _few(len(message.attestations))
    return tuple(decode_attestation(one) for one in message.attestations), message.explain


def encode_entitlements(entitlements: Iterable[Entitlement], rules_version: str) -> pb.ResolveResponse:
    """For a server."""
    return pb.ResolveResponse(
        entitlements=[encode_entitlement(one) for one in entitlements], rules_version=rules_version
    )


def decode_entitlements(message: pb.ResolveResponse) -> tuple[tuple[Entitlement, ...], str]:
    """For a node: the entitlements in the order asked, and the version of the rules. Raises Malformed."""
    return tuple(decode_entitlement(one) for one in message.entitlements), message.rules_version


def encode_sign(items: Iterable[SignItem]) -> pb.SignRequest:
    """For a node."""
    return pb.SignRequest(
        items=[
            pb.SignItem(
                attestation=encode_attestation(one.attestation), spiffe_id=str(one.id), public_key=one.public_key
            )
            for one in items
        ]
    )


def decode_sign(message: pb.SignRequest) -> tuple[SignItem, ...]:
    """For a server. Raises Malformed."""
    _few(len(message.items))
    if any(not 0 < len(one.public_key) <= LONGEST_KEY for one in message.items):
        raise Malformed(f"a public key must be given, and not be longer than {LONGEST_KEY} bytes")
    return tuple(
        SignItem(
            attestation=decode_attestation(one.attestation),
            id=SpiffeId.parse(one.spiffe_id),
            public_key=one.public_key,
        )
        for one in message.items
    )


def encode_signed(results: Sequence[Signed | Refusal]) -> pb.SignResponse:
    """For a server."""
    return pb.SignResponse(
        results=[
            pb.SignResult(chain=one.chain)
            if isinstance(one, Signed)
            else pb.SignResult(refusal=pb.Refusal(code=one.code, reason=one.reason))
            for one in results
        ]
    )


def decode_signed(message: pb.SignResponse) -> tuple[Signed | Refusal, ...]:
    """For a node, in the order asked. Raises Malformed."""
    if not all(one.WhichOneof("result") for one in message.results):
        raise Malformed("the attestor server answered a signature with neither a chain nor a refusal")
    return tuple(
        Signed(chain=one.chain) if one.HasField("chain") else Refusal(code=one.refusal.code, reason=one.refusal.reason)
        for one in message.results
    )


def encode_sign_jwt(item: JwtItem) -> pb.SignJwtRequest:
    """For a node."""
    return pb.SignJwtRequest(
        attestation=encode_attestation(item.attestation), spiffe_id=str(item.id), audience=item.audience
    )


def decode_sign_jwt(message: pb.SignJwtRequest) -> JwtItem:
    """For a server. Raises Malformed."""
    if not 0 < len(message.audience) <= MOST_AUDIENCES or not all(message.audience):
        raise Malformed(f"a JWT-SVID needs one to {MOST_AUDIENCES} audiences, and none may be empty")
    return JwtItem(
        attestation=decode_attestation(message.attestation),
        id=SpiffeId.parse(message.spiffe_id),
        audience=tuple(message.audience),
    )


def encode_sign_wit(item: WitItem) -> pb.SignWitRequest:
    """For a node."""
    return pb.SignWitRequest(
        attestation=encode_attestation(item.attestation), spiffe_id=str(item.id), public_key=item.public_key
    )


def decode_sign_wit(message: pb.SignWitRequest) -> WitItem:
    """For a server. Raises Malformed."""
    if not 0 < len(message.public_key) <= LONGEST_KEY:
        raise Malformed(f"a public key must be given, and not be longer than {LONGEST_KEY} bytes")
    return WitItem(
        attestation=decode_attestation(message.attestation),
        id=SpiffeId.parse(message.spiffe_id),
        public_key=message.public_key,
    )


def _bundle(bundle: BundleDocument) -> pb.Bundle:
    return pb.Bundle(trust_domain=bundle.trust_domain.name, document=bundle.document)


def _read_bundle(message: pb.Bundle) -> BundleDocument:
    return BundleDocument(trust_domain=TrustDomain.parse(message.trust_domain), document=message.document)


def _few(count: int) -> None:
    if not 0 < count <= MOST_ITEMS:
        raise Malformed(f"a batch must hold 1 to {MOST_ITEMS} items, not {count}")
