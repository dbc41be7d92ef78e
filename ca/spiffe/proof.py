"""The Workload Proof Token (draft-ietf-wimse-wpt-02): what makes a WIT-SVID worth something.

For each message the holder of a WIT-SVID signs, with the key the WIT names, for whom the message is, until when, and
which WIT and which other tokens go with it. `verify` alone turns a WIT into a peer: it wants both tokens, so no caller
can forget the second. A proof is accepted once: `ReplayCache` remembers it until it has expired.

Validators never take an audience from the request itself (`Host`, `X-Forwarded-Host`): it is an argument.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from joserfc.util import urlsafe_b64encode

from ca.errors import Malformed
from ca.spiffe import jose, witsvid
from ca.spiffe.bundle import BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import SpiffeId
from ca.spiffe.replay import ReplayCache
from ca.spiffe.witsvid import UnprovenWit, WitSvid

__all__ = ["LONGEST_PROOF", "PROOF_HEADER", "WIT_HEADER", "Beside", "ReplayCache", "WitPeer", "mint", "shown", "verify"]

TYPE = "wpt+jwt"
WIT_HEADER = "Workload-Identity-Token"
PROOF_HEADER = "Workload-Proof-Token"
LONGEST_PROOF = timedelta(minutes=5)
"""No proof is believed that lives longer, so none has to be remembered longer."""

_USUAL_PROOF = timedelta(seconds=30)
_LONGEST_JTI = 256
_WHAT = "a workload proof token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The other tokens of a message that say for whom it is done; `other` by the lower-case name of their header.

    A proof must name every one of them by its hash, and none that is not there.
    """

    access_token: str | None = field(default=None, repr=False)
    transaction_token: str | None = field(default=None, repr=False)
    other: Mapping[str, str] = field(default_factory=dict, repr=False)

    def claims(self) -> dict[str, Any]:
        """The claims `ath`, `tth` and `oth` for these tokens."""
        found: dict[str, Any] = {}
        if self.access_token is not None:
            found["ath"] = _hash(self.access_token)
        if self.transaction_token is not None:
            found["tth"] = _hash(self.transaction_token)
        if self.other:
            found["oth"] = {name: _hash(token.strip(" ")) for name, token in sorted(self.other.items())}
        return found


_NOTHING = Beside()


@dataclass(frozen=True, slots=True, kw_only=True)
class WitPeer:
    """Who sent a message, proven: the WIT holds, and the sender has its key."""

    id: SpiffeId
    instance: str | None
    not_after: datetime
    claims: Mapping[str, Any] = field(repr=False)


def mint(
    svid: WitSvid, audience: str, now: datetime, *, ttl: timedelta = _USUAL_PROOF, beside: Beside = _NOTHING
) -> str:
    """A proof for one message to `audience`: its target URI without query and fragment, or what that party expects.

    Raises:
        Malformed: no audience, or a life that no verifier would believe.
    """
    if not audience:
        raise Malformed(f"{_WHAT} is for an audience, and none was given")
    if not timedelta(0) < ttl <= LONGEST_PROOF:
        raise Malformed(f"{_WHAT} lives longer than nothing and at most {int(LONGEST_PROOF.total_seconds())} seconds")
    claims = {
        "aud": audience,
        "exp": jose.seconds(now + ttl),
        "jti": secrets.token_urlsafe(16),
        "wth": _hash(svid.token),
        **beside.claims(),
    }
    return jose.sign({"alg": svid.algorithm, "typ": TYPE}, claims, svid.private_key)


def verify(
    wit_token: str,
    proof_token: str,
    *,
    audiences: Collection[str],
    bundles: BundleSet,
    now: datetime,
    seen: ReplayCache,
    beside: Beside = _NOTHING,
) -> WitPeer:
    """Who sent the message with these two tokens at the time `now` to one of `audiences`, proven.

    Raises:
        Malformed: one of the two can't be read.
        Untrusted: the WIT does not hold (`witsvid.check`), or the proof is not of its key, for another WIT or audience,
            out of its time, without one of the tokens beside it, or was seen before (`Replayed`).
        Exhausted: the sender, or all senders, have more proofs under way than are remembered.
    """
    wit = witsvid.check(wit_token, bundles, now)
    header, claims = jose.take_apart(proof_token, _WHAT)
    _check_signature(wit, proof_token, header)
    _check_binding(wit, claims, audiences, beside)
    expires, jti = _check_time(wit, claims, now), _number(wit, claims)
    spiffe_id = SpiffeId.parse(wit.subject)
    seen.admit(wit.subject, f"{claims['wth']} {jti}", expires + jose.LEEWAY, now)
    return WitPeer(
        id=spiffe_id,
        instance=jose.instance_of(wit.claims),
        not_after=wit.expires_at,
        claims=wit.claims,
    )


def shown(headers: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """The two tokens of an HTTP request, from its header fields; a WIT in `Authorization` is none.

    Raises:
        Untrusted: one of the two is missing.
        Malformed: one of them is there more than once.
    """
    found: dict[str, list[str]] = {WIT_HEADER.lower(): [], PROOF_HEADER.lower(): []}
    for name, value in headers:
        if name.lower() in found:
            found[name.lower()].append(value.strip(" \t"))
    if any(len(values) > 1 for values in found.values()):
        raise Malformed(f"a request has one `{WIT_HEADER}` and one `{PROOF_HEADER}`, and not more")
    wit, proof = found.values()
    if not wit or not proof:
        raise Untrusted(f"the request lacks `{PROOF_HEADER if wit else WIT_HEADER}`: a WIT is shown with its proof")
    return wit[0], proof[0]


def _check_signature(wit: UnprovenWit, token: str, header: Mapping[str, Any]) -> None:
    if header.get("typ") != TYPE:
        raise Untrusted(f"the proof of `{wit.subject}` is none: its `typ` is not `{TYPE}`")
    if "crit" in header:
        raise Untrusted(f"the proof of `{wit.subject}` has a critical member that is not known here")
    if header.get("alg") != wit.algorithm:
        raise Untrusted(f"the proof of `{wit.subject}` has another `alg` than its WIT demands")
    if not jose.signed_by(token, wit.algorithm, wit.key):
        raise Untrusted(f"the proof of `{wit.subject}` is not signed by the key its WIT names")


def _check_binding(wit: UnprovenWit, claims: Mapping[str, Any], audiences: Collection[str], beside: Beside) -> None:
    audience = claims.get("aud")
    if isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    if isinstance(audiences, str) or not isinstance(audience, str) or audience not in audiences:
        raise Untrusted(f"the proof of `{wit.subject}` is meant for another audience")
    if claims.get("wth") != _hash(wit.token):
        raise Untrusted(f"the proof of `{wit.subject}` belongs to another WIT")
    expected = beside.claims()
    for claim in ("ath", "tth", "oth"):
        if claims.get(claim) != expected.get(claim):
            raise Untrusted(f"the proof of `{wit.subject}` and the tokens beside it differ in `{claim}`")


def _check_time(wit: UnprovenWit, claims: Mapping[str, Any], now: datetime) -> datetime:
    expires = jose.moment_of(claims, "exp")
    if now - jose.LEEWAY >= expires:
        raise Untrusted(f"the proof of `{wit.subject}` expired at {expires:%Y-%m-%dT%H:%M:%SZ}")
    if expires > now + LONGEST_PROOF + jose.LEEWAY:
        raise Untrusted(f"the proof of `{wit.subject}` would live longer than any proof should")
    for claim in ("nbf", "iat"):
        if claim in claims and now + jose.LEEWAY < jose.moment_of(claims, claim):
            raise Untrusted(f"the proof of `{wit.subject}` is not valid yet")
    return expires


def _number(wit: UnprovenWit, claims: Mapping[str, Any]) -> str:
    value = claims.get("jti")
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_JTI:
        raise Untrusted(f"the proof of `{wit.subject}` has no `jti`, or one longer than {_LONGEST_JTI} characters")
    return value


def _hash(token: str) -> str:
    """As `wth`, `ath`, `tth` and `oth` have it. Raises Malformed for a token that is not ASCII."""
    if not token.isascii():
        raise Malformed("a token is not ASCII, so no proof can go with it")
    return urlsafe_b64encode(hashlib.sha256(token.encode("ascii")).digest()).decode("ascii")
