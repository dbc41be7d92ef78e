"""T1, T3: a federated authority that tries to name our members, with every name, key id, serial and `kid` of ours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ca.spiffe import jwtsvid, proof, x509svid
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.jwk import of_jwt_key
from ca.spiffe.replay import ReplayCache
from ca.spiffe.x509svid import X509Svid
from ca.tls import TlsMaterial
from fakes.pki import Oddities, TestAuthority, der_chain, make_key
from fakes.tls_ends import CLOCK, End, ask, authority, end, refused, serving
from fakes.wits import HERE, WitIssuer, make_proof

ADMIN = "spiffe://example.org/admin"
OURS = WitIssuer(authority("example.org"))
THEIRS = WitIssuer(authority("foreign.org"))
NOW = OURS.authority.now
BUNDLES = BundleSet.of(OURS.bundle(), THEIRS.bundle())


def twin(of: x509.Certificate, by: tuple[x509.Certificate, object]) -> tuple[x509.Certificate, object]:
    """A certificate that says everything `of` says, its key id too, over a key of the forger's, signed `by` theirs."""
    key = make_key()
    builder = x509.CertificateBuilder(
        issuer_name=by[0].subject,
        subject_name=of.subject,
        public_key=key.public_key(),
        serial_number=of.serial_number,
        not_valid_before=of.not_valid_before_utc,
        not_valid_after=of.not_valid_after_utc,
    )
    for extension in of.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(by[1], hashes.SHA256()), key  # type: ignore[arg-type]


def forger(kind: str) -> tuple[TestAuthority, tuple[x509.Certificate, ...]]:
    """An authority that signs for the forger, and what it shows behind the leaf."""
    made = TestAuthority("example.org", now=NOW)
    theirs = THEIRS.authority
    if kind == "plain":
        made.issuer, made.issuer_key = theirs.issuer, theirs.issuer_key
        return made, (theirs.issuer,)
    by = (theirs.issuer, theirs.issuer_key) if kind == "below its issuer" else (theirs.root, theirs.root_key)
    issuer, key = twin(OURS.authority.issuer, by)
    made.issuer, made.issuer_key = issuer, key  # type: ignore[assignment]
    return made, (issuer, *((theirs.issuer,) if kind == "below its issuer" else ()), OURS.authority.issuer)


KINDS = ["plain", "with our issuer's names and key id", "below its issuer"]


def forged(kind: str, now: datetime = NOW) -> X509Svid:
    """A chain that names our admin, with the serial of a leaf of ours."""
    made, behind = forger(kind)
    key, serial = make_key(), OURS.authority.certificate("/admin").serial_number
    leaf = made.certificate("/admin", now=now, odd=Oddities(key=key, serial=serial))
    return X509Svid.of((leaf, *behind), key)


@pytest.mark.clause("WL-9", "FED-5")
@pytest.mark.parametrize("kind", KINDS)
def test_no_chain_of_theirs_names_a_member_of_ours(kind: str) -> None:
    """Whatever the certificates in it are called."""
    svid = forged(kind)
    assert str(svid.id) == ADMIN
    with pytest.raises(Untrusted, match=r"no authority of `example\.org`"):
        x509svid.verify(der_chain(svid.chain), BUNDLES, NOW)


@pytest.mark.parametrize("kind", KINDS)
async def test_nor_does_it_through_a_handshake(kind: str) -> None:
    """At a server and at a client: OpenSSL's pooled store may admit the chain, and not one byte is read."""
    server, honest = end(OURS.authority, "/server", THEIRS.authority), end(OURS.authority, "/agent", THEIRS.authority)
    attacker = End(TlsMaterial.of(forged(kind, CLOCK.now()), BUNDLES), BUNDLES)
    async with serving(server.server()) as served:
        await refused(served.port, attacker.client())
        assert (await ask(served.port, honest.client()))[0] == b"hello\n"
    assert served.received == [b"hello\n"]
    assert len(server.refusals) == 1
    async with serving(attacker.server()) as served:
        await refused(served.port, honest.client())
    assert b"hello\n" not in served.received
    assert len(honest.refusals) == 1


def test_their_root_in_our_clothes_is_not_ours() -> None:
    """A foreign bundle may hold an authority with all our names; it stays in the foreign bundle."""
    root, key = twin(OURS.authority.root, (THEIRS.authority.root, THEIRS.authority.root_key))
    disguised = Bundle(trust_domain=THEIRS.trust_domain, x509_authorities=(root,))
    made = TestAuthority("example.org", now=NOW)
    made.issuer, made.issuer_key = root, key  # type: ignore[assignment]
    leaf = made.certificate("/admin")
    with pytest.raises(Untrusted, match=r"no authority of `example\.org`"):
        x509svid.verify(der_chain((leaf,)), BundleSet.of(OURS.bundle(), disguised), NOW)


def test_our_root_in_their_bundle_names_nobody_of_theirs() -> None:
    """What they publish makes our authority no signer of their names for us, nor theirs of ours."""
    both = Bundle(trust_domain=THEIRS.trust_domain, x509_authorities=(OURS.authority.root, THEIRS.authority.root))
    bundles = BundleSet.of(OURS.bundle(), both)
    chain = THEIRS.authority.chain(THEIRS.authority.certificate(odd=Oddities(uris=[ADMIN])))
    with pytest.raises(Untrusted, match=r"no authority of `example\.org`"):
        x509svid.verify(der_chain(chain), bundles, NOW)


TOKENS: dict[str, Callable[[], str]] = {
    "their key": lambda: THEIRS.authority.token(now=NOW, claims={"sub": ADMIN}),
    "their key under our kid": lambda: THEIRS.authority.token(
        now=NOW, claims={"sub": ADMIN}, header={"kid": OURS.authority.jwt_key_id}
    ),
    "their key in the header": lambda: THEIRS.authority.token(
        now=NOW, claims={"sub": ADMIN}, header={"jwk": of_jwt_key("jwt-1", THEIRS.authority.jwt_key.public_key())}
    ),
    "their name in `iss`": lambda: THEIRS.authority.token(
        now=NOW, claims={"sub": ADMIN, "iss": "spiffe://foreign.org"}
    ),
    "without a kid": lambda: THEIRS.authority.token(now=NOW, claims={"sub": ADMIN}, header={"kid": None}),
}


@pytest.mark.clause("JWT-11")
@pytest.mark.parametrize("made", TOKENS.values(), ids=TOKENS)
def test_no_token_of_theirs_names_a_member_of_ours(made: Callable[[], str]) -> None:
    """The subject's domain chooses the keys, and the header none."""
    with pytest.raises(Untrusted):
        jwtsvid.verify(made(), "server", BUNDLES, NOW)


@pytest.mark.clause("WIT-20")
def test_no_wit_of_theirs_names_a_member_of_ours() -> None:
    """Nor does an honest WIT of theirs with a proof by a key of ours."""
    renamed = THEIRS.svid(now=NOW, claims={"sub": ADMIN})
    stolen = OURS.svid("/admin", now=NOW)
    for wit, shown in (
        (renamed.token, make_proof(renamed, now=NOW)),
        (stolen.token, make_proof(stolen, now=NOW, key=make_key("thief"))),
        (stolen.token, make_proof(renamed, now=NOW)),
    ):
        with pytest.raises(Untrusted):
            proof.verify(wit, shown, audiences=[HERE], bundles=BUNDLES, now=NOW, seen=ReplayCache())


def test_an_honest_foreigner_is_a_foreigner() -> None:
    """So that everything above is refused for what it forges."""
    leaf = THEIRS.authority.leaf("/admin")
    assert str(x509svid.verify(der_chain(leaf.chain), BUNDLES, NOW).id) == "spiffe://foreign.org/admin"
    token = THEIRS.authority.token("/admin", now=NOW)
    assert str(jwtsvid.verify(token, "server", BUNDLES, NOW).id) == "spiffe://foreign.org/admin"
    svid = THEIRS.svid("/admin", now=NOW)
    shown = make_proof(svid, now=NOW)
    peer = proof.verify(svid.token, shown, audiences=[HERE], bundles=BUNDLES, now=NOW, seen=ReplayCache())
    assert str(peer.id) == "spiffe://foreign.org/admin"
