"""One leaf or token out of the authority, with a life that is bounded by everything that bounds it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509 as certificates
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from ca.authority import Authority
from ca.authority.settings import SHARE
from ca.errors import Malformed, Stale, Unavailable
from ca.profiles import jwt, wit, x509
from ca.profiles.prepared import Kind, Prepared
from ca.profiles.x509 import LeafRequest
from ca.runtime.database import Database, Unit
from ca.store import State, StoredAuthority, everything

LONGEST_CSR = 8 * 1024
T = TypeVar("T")


class Leaves:
    """What the attestor server asks of the authority."""

    def __init__(self, authority: Authority, database: Database) -> None:
        self.authority = authority
        self._database = database
        self._withdrawn: tuple[int, tuple[StoredAuthority, ...]] = (-1, ())

    def prepare(self, request: LeafRequest, now: datetime) -> Prepared:
        """The leaf for `request`, not longer than its issuer allows. Raises Malformed, Unavailable."""
        issuer = self.authority.issuer(now)
        ttl = _bounded(request.ttl, self.authority.settings.longest_x509_ttl, issuer.not_after - now)
        bounded = LeafRequest(
            id=request.id,
            public_key=request.public_key,
            instance=request.instance,
            ttl=ttl,
            dns_names=request.dns_names,
        )
        return x509.prepare(bounded, issuer, now)

    async def sign(
        self, requests: Sequence[LeafRequest], now: datetime, only_if: Unit[None] | None = None
    ) -> list[bytes]:
        """Chains, concatenated DER, in the order asked; all or none. Raises Unfit, Malformed, Unavailable.

        `only_if` is run in the transaction that records them, and may refuse them all.
        """

        async def attempt() -> list[bytes]:
            chains = await self.authority.sign_x509_many([self.prepare(one, now) for one in requests], only_if)
            return [b"".join(chain) for chain in chains]

        return await _twice(attempt)

    async def sign_jwt(self, request: jwt.JwtRequest, now: datetime) -> str:
        """One token. Raises Unfit, Unavailable."""
        return await _twice(lambda: self.authority.sign_jwt(self._prepare_jwt(request, now)))

    async def sign_wit(self, request: wit.WitRequest, now: datetime) -> str:
        """One workload identity token, as long as the authority lets it live. Raises Unfit, Malformed, Unavailable."""
        return await _twice(lambda: self.authority.sign_wit(self._prepare_wit(request, now)))

    async def withdrawn(self, now: datetime) -> frozenset[bytes]:
        """Key ids of authorities that are not to be trusted any more: what they signed is to be replaced now.

        One is named until the last thing it signed has expired.
        """
        generation = self.authority.generation
        if self._withdrawn[0] != generation:
            found = await self._database.read(everything)
            taken_back = tuple(one for one in found if one.state in {State.TAINTED, State.REVOKED})
            self._withdrawn = generation, taken_back
        return frozenset(one.key_id for one in self._withdrawn[1] if now < one.signed_until)

    def _prepare_jwt(self, request: jwt.JwtRequest, now: datetime) -> Prepared:
        issuer = self.authority.jwt_issuer(now)
        longest = self.authority.settings.ttl(Kind.JWT) / SHARE
        ttl = _bounded(request.ttl, longest, issuer.not_after - now)
        bounded = jwt.JwtRequest(id=request.id, audience=request.audience, instance=request.instance, ttl=ttl)
        return jwt.prepare(bounded, issuer, now)

    def _prepare_wit(self, request: wit.WitRequest, now: datetime) -> Prepared:
        issuer = self.authority.wit_issuer(now)
        longest = self.authority.settings.ttl(Kind.WIT) / SHARE
        ttl = _bounded(request.ttl, longest, issuer.not_after - now)
        return wit.prepare(replace(request, ttl=ttl), issuer, now)


def read_csr(der: bytes) -> x509.LeafKey:
    """The public key of a PKCS#10 request, whose sender has shown to hold the private one. Raises Malformed.

    Names in it are not looked at: the server decides what a certificate says.
    """
    return read_request(der)[0]


def read_request(der: bytes) -> tuple[x509.LeafKey, frozenset[str]]:
    """The same, and the alternative names it asks for. Raises Malformed."""
    if not 0 < len(der) <= LONGEST_CSR:
        raise Malformed(f"a certificate request must be given, and not be longer than {LONGEST_CSR} bytes")
    try:
        request = certificates.load_der_x509_csr(der)
        proven = request.is_signature_valid
        key, names = request.public_key(), _names(request)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise Malformed("this is not a DER certificate request we can read") from error
    if not proven:
        raise Malformed("the certificate request's signature does not hold: its sender does not have the key")
    if not isinstance(key, x509.LeafKey):
        raise Malformed("a certificate request's key must be of EC, RSA or Ed25519")
    return key, names


def _names(request: certificates.CertificateSigningRequest) -> frozenset[str]:
    try:
        found = request.extensions.get_extension_for_class(certificates.SubjectAlternativeName).value
    except certificates.ExtensionNotFound:
        return frozenset()
    return frozenset(str(getattr(one, "value", one)) for one in found)


def spki(key: x509.LeafKey) -> bytes:
    """Its SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


async def _twice(attempt: Callable[[], Awaitable[T]]) -> T:
    """Once more when the authority was replaced between preparing and signing. Raises Unavailable."""
    try:
        return await attempt()
    except Stale:
        return await _once_more(attempt)


async def _once_more(attempt: Callable[[], Awaitable[T]]) -> T:
    try:
        return await attempt()
    except Stale as error:
        raise Unavailable("the authority is being replaced: try again") from error


def _bounded(*lengths: timedelta) -> timedelta:
    shortest = min(lengths)
    if shortest <= timedelta(0):
        raise Unavailable("the issuing authority is about to end, and its successor is not there yet")
    return shortest
