"""The WIT profile of the SPIFFE Workload API: its methods by name, and its messages as values (7 of the standard).

Unlike in the other profiles the bundles and the private key travel as text: JWKs in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attestor._proto import workload_pb2 as pb
from attestor.wire.workload import SERVICE
from ca.errors import Malformed
from ca.spiffe.id import SpiffeId, TrustDomain

FETCH_WIT_SVID = f"/{SERVICE}/FetchWITSVID"  # server stream
FETCH_WIT_BUNDLES = f"/{SERVICE}/FetchWITBundles"  # server stream


@dataclass(frozen=True, slots=True, kw_only=True)
class WitEntry:
    """One WIT-SVID as it travels; `key` is the private JWK its `cnf` names, in JSON."""

    id: SpiffeId
    token: str = field(repr=False)
    key: str = field(repr=False)
    hint: str = ""


def encode_request(wanted: SpiffeId | None) -> pb.WITSVIDRequest:
    """For a client; None: one of each identity."""
    return pb.WITSVIDRequest(spiffe_id=str(wanted) if wanted else "")


def decode_request(message: pb.WITSVIDRequest) -> SpiffeId | None:
    """For a server. Raises Malformed."""
    return SpiffeId.parse(message.spiffe_id) if message.spiffe_id else None


def encode(entries: tuple[WitEntry, ...]) -> pb.WITSVIDResponse:
    """For a server."""
    return pb.WITSVIDResponse(
        svids=[
            pb.WITSVID(spiffe_id=str(one.id), wit_svid=one.token, wit_svid_key=one.key, hint=one.hint)
            for one in entries
        ]
    )


def decode(message: pb.WITSVIDResponse) -> tuple[WitEntry, ...]:
    """For a client. Of several entries with one hint only the first is kept (WL-10). Raises Malformed."""
    if not message.svids or not all(one.spiffe_id and one.wit_svid and one.wit_svid_key for one in message.svids):
        raise Malformed("the Workload API sent no WIT-SVID, or an empty one")
    kept: dict[object, WitEntry] = {}
    for index, one in enumerate(message.svids):
        entry = WitEntry(id=SpiffeId.parse(one.spiffe_id), token=one.wit_svid, key=one.wit_svid_key, hint=one.hint)
        kept.setdefault(entry.hint or index, entry)
    return tuple(kept.values())


def encode_bundles(bundles: Mapping[TrustDomain, bytes]) -> pb.WITBundlesResponse:
    """For a server; the values are JWKS documents that hold only WIT keys."""
    return pb.WITBundlesResponse(bundles={str(domain.id): jwks.decode() for domain, jwks in bundles.items()})


def decode_bundles(message: pb.WITBundlesResponse) -> Mapping[TrustDomain, bytes]:
    """For a client. Raises Malformed."""
    if not message.bundles:
        raise Malformed("the Workload API sent no bundle, at least one was expected")
    return {TrustDomain.parse(name): text.encode() for name, text in message.bundles.items()}
