"""An attestor server as a node agent's parts see it: signs for whom the test says, fails when told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.errors import NotEntitled
from attestor.instance import Binding
from attestor.wire.answers import Unsupported
from attestor.wire.attestation import Attestation, Entitlement, Identity
from attestor.wire.node import JwtItem, Refusal, Signed, SignItem, WitItem
from ca.errors import Unavailable
from ca.runtime.clock import Clock
from ca.spiffe import jose, jwk
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import SpiffeId
from fakes.pki import Oddities, TestAuthority
from fakes.wits import WitIssuer


def identity(spiffe_id: SpiffeId, hint: str = "") -> Identity:
    """An identity as a rule gives it."""
    return Identity(
        id=spiffe_id,
        rule="rule",
        hint=hint,
        x509_ttl=timedelta(hours=1),
        jwt_ttl=timedelta(minutes=5),
        bind=Binding.NONE,
    )


class FakeIssuer:
    """`given` says what an attestation is entitled to; `down` makes it unreachable."""

    def __init__(self, authority: TestAuthority, clock: Clock) -> None:
        self.authority = authority
        self._clock = clock
        self.wit = WitIssuer(authority)
        self.bundles = BundleSet.of(self.wit.bundle())
        self.rules_version = "1"
        self.withdrawn: frozenset[bytes] = frozenset()
        self.revocation_lists: tuple[bytes, ...] = ()
        self.personal: Mapping[str, str] = {}
        self.initialised = True
        self.down = False
        self.given: Callable[[Attestation], tuple[Identity, ...]] = lambda _: (identity(authority.id("/agent")),)
        self.refusal: Refusal | None = None
        self.ttl = timedelta(hours=1)
        self.token_ttl = timedelta(minutes=5)
        self.resolved: list[Attestation] = []
        self.signed: list[SignItem] = []
        self.tokens = 0
        self.wits = 0
        self.signs_no_wit = False
        self.before_signing: Callable[[], object] = lambda: None
        self.disguise: Callable[[SignItem], SignItem] = lambda item: item
        self.names_itself = True

    async def resolve(self, attestations: Sequence[Attestation]) -> list[Entitlement]:
        """As a server does."""
        self._reach()
        self.resolved += attestations
        return [Entitlement(instance=one.instance, identities=self.given(one)) for one in attestations]

    async def sign(self, items: Sequence[SignItem]) -> list[Signed | Refusal]:
        """As a server does."""
        if items:
            self._reach()
            self.before_signing()
        self.signed += items
        return [self.refusal or Signed(chain=self._chain(self.disguise(item))) for item in items]

    async def sign_jwt(self, item: JwtItem) -> str:
        """As a server does."""
        self._reach()
        if item.id not in {one.id for one in self.given(item.attestation)}:
            raise NotEntitled("no")
        self.tokens += 1
        return self.authority.token(
            item.id.path, item.audience, ttl=self.token_ttl, now=self._clock.now(), claims={"jti": str(self.tokens)}
        )

    async def sign_wit(self, item: WitItem) -> str:
        """As a server does, or as one that doesn't offer it."""
        self._reach()
        if self.signs_no_wit:
            raise Unsupported("there is no such method here")
        if item.id not in {one.id for one in self.given(item.attestation)}:
            raise NotEntitled("no")
        self.wits += 1
        key = serialization.load_der_public_key(item.public_key)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        claims = {"cnf": {"jwk": jwk.of_confirmation(key)}, jose.INSTANCE_CLAIM: item.attestation.instance}
        return self.wit.token(item.id.path, ttl=self.token_ttl, now=self._clock.now(), claims=claims)

    def _reach(self) -> None:
        if self.down:
            raise Unavailable("the attestor server can't be reached at the moment")

    def _chain(self, item: SignItem) -> bytes:
        leaf = self.authority.certificate(
            item.id.path,
            instance=item.attestation.instance,
            ttl=self.ttl,
            now=self._clock.now(),
            odd=Oddities(
                key=_Public(item.public_key),  # type: ignore[arg-type]  # only its public half is asked for
                authority_key_id=self.names_itself,
            ),
        )
        return b"".join(one.public_bytes(serialization.Encoding.DER) for one in self.authority.chain(leaf))


class _Public:
    def __init__(self, spki: bytes) -> None:
        self._key = serialization.load_der_public_key(spki)

    def public_key(self) -> object:
        return self._key
