"""Keys on a PKCS#11 token: made there, used there, never seen by this process.

A key is a pair of objects whose label is the key's name and whose identifier (CKA_ID) is `sojourn`, the purpose and the
name: what others keep on the same token is neither listed nor touched. A private key that is not sensitive, can be
extracted or was not made on the token is refused: somebody may have a copy. With each key that is loaded a signature is
tried, so the public half is known to be its own.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any, Never, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ca.errors import Malformed, Unavailable
from ca.keys.protocol import KeyExists, KeyNotFound, KeyStore, KeyUnusable, Place, Purpose, SigningKey, check_name
from ca.keys.token import Session, Token, open_token

_MARK = b"sojourn"

Wanted = tuple[str, bytes | str]
"""How a private key is found again in any session: an attribute and its value."""


def open_store(place: Place) -> KeyStore:
    """The store on the place's token; nothing is asked of it yet. Raises Malformed."""
    if place.module is None or place.pin is None or not place.token:
        raise Malformed("keys on a token need the path of its `module`, the label of the `token` and its `pin`")
    return Pkcs11KeyStore(open_token(place.module, place.token, place.pin))


class TokenKey:
    """A P-256 key on a token."""

    __slots__ = ("_key_id", "_name", "_public", "_purpose", "_token", "_wanted")

    def __init__(
        self,
        token: Token,
        name: str,
        purpose: Purpose,
        public: ec.EllipticCurvePublicKey,
        wanted: Wanted | None = None,
    ) -> None:
        self._token, self._name, self._purpose, self._public = token, name, purpose, public
        self._wanted = ("ID", _identifier(name, purpose)) if wanted is None else wanted
        self._key_id = x509.SubjectKeyIdentifier.from_public_key(public).digest

    @property
    def name(self) -> str:
        """The label."""
        return self._name

    @property
    def purpose(self) -> Purpose:
        """The one thing it is for."""
        return self._purpose

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The half that may be shown."""
        return self._public

    @property
    def key_id(self) -> bytes:
        """The subject key identifier."""
        return self._key_id

    async def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, as DER; the hash is made here. Raises Unavailable."""
        return await self._token.run(partial(_sign, self._wanted, data))

    def __repr__(self) -> str:
        return f"TokenKey({self._name}, {self._purpose})"

    def __reduce__(self) -> Never:
        raise TypeError("a private key is not to be pickled or copied")


class Pkcs11KeyStore:
    """What of one token is ours."""

    durable = True
    sealed = True

    def __init__(self, token: Token) -> None:
        self._token = token

    async def create(self, name: str, purpose: Purpose) -> SigningKey:
        """Make a new key on the token. Raises KeyExists, KeyUnusable, Malformed, Unavailable."""
        check_name(name)
        public = await self._token.run(partial(_create, name, _identifier(name, purpose)))
        return TokenKey(self._token, name, purpose, public)

    async def load(self, name: str, purpose: Purpose) -> SigningKey:
        """Find the key `name`. Raises KeyNotFound, KeyUnusable, Unavailable."""
        check_name(name)
        public = await self._token.run(partial(_load, name, _identifier(name, purpose)))
        return TokenKey(self._token, name, purpose, public)

    async def list(self) -> Sequence[str]:
        """The names, sorted. Raises Unavailable."""
        return await self._token.run(_names)

    async def delete(self, name: str) -> None:
        """Destroy both halves of the key `name`. Raises Unavailable."""
        await self._token.run(partial(_delete, check_name(name)))


async def foreign_key(token: Token, label: str, purpose: Purpose, public_key: ec.EllipticCurvePublicKey) -> SigningKey:
    """A key somebody else made on the token, found by its label, if it is the one of `public_key`.

    It may have been brought there, so nothing is asked of its attributes. Raises KeyUnusable, Unavailable.
    """
    await token.run(partial(_try, label, public_key))
    return TokenKey(token, label, purpose, public_key, ("LABEL", label))


def _try(label: str, public_key: ec.EllipticCurvePublicKey, session: Session) -> None:
    wanted, probe = ("LABEL", label), secrets.token_bytes(32)
    session.known.pop(wanted, None)
    try:
        public_key.verify(_sign(wanted, probe, session), probe, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise KeyUnusable(f"the key `{label}` on the token is not that of the root's certificate") from error


def _identifier(name: str, purpose: Purpose) -> bytes:
    return b"\x00".join((_MARK, purpose.encode(), name.encode()))


def _ours(session: Session, kind: str, name: str | None = None) -> list[Any]:
    """Our objects of a class, all or those of one name."""
    from pkcs11 import Attribute, ObjectClass

    wanted: dict[Attribute, Any] = {Attribute.CLASS: ObjectClass[kind]}
    if name is not None:
        wanted[Attribute.LABEL] = name
    return [each for each in session.raw.get_objects(wanted) if bytes(each[Attribute.ID]).startswith(_MARK + b"\x00")]


def _names(session: Session) -> list[str]:
    return sorted(bytes(each.id).rpartition(b"\x00")[2].decode() for each in _ours(session, "PRIVATE_KEY"))


def _create(name: str, identifier: bytes, session: Session) -> ec.EllipticCurvePublicKey:
    from pkcs11 import Attribute, KeyType, Mechanism
    from pkcs11.util.ec import encode_named_curve_parameters

    if _ours(session, "PRIVATE_KEY", name):
        raise KeyExists(f"there is a key `{name}` on the token already")
    curve = session.raw.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
    )
    public, private = curve.generate_keypair(
        id=identifier,
        label=name,
        store=True,
        mechanism=Mechanism.EC_KEY_PAIR_GEN,
        private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.DERIVE: False},
    )
    session.known["ID", identifier] = private
    return _public(public)


def _load(name: str, identifier: bytes, session: Session) -> ec.EllipticCurvePublicKey:
    found = _ours(session, "PRIVATE_KEY", name)
    if not found:
        raise KeyNotFound(f"there is no key `{name}` on the token")
    if len(found) > 1:
        raise KeyUnusable(f"there are {len(found)} keys `{name}` on the token")
    if bytes(found[0].id) != identifier:
        purpose = bytes(found[0].id).split(b"\x00")[1].decode(errors="replace")
        raise KeyUnusable(f"the key `{name}` was made for `{ascii(purpose[:40])[1:-1]}`, not for what is asked")
    _check(name, found[0])
    session.known["ID", identifier] = found[0]
    for each in _ours(session, "PUBLIC_KEY", name):
        public = _public(each)
        probe = secrets.token_bytes(32)
        try:
            public.verify(_sign(("ID", identifier), probe, session), probe, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise KeyUnusable(f"the two halves of the key `{name}` on the token do not belong together") from error
        return public
    raise KeyUnusable(f"the key `{name}` on the token has no public half")


def _check(name: str, private: Any) -> None:
    """Refuse a key of which there may be a copy. Raises KeyUnusable."""
    from pkcs11 import Attribute
    from pkcs11.exceptions import AttributeTypeInvalid

    for attribute, expected in (
        (Attribute.SENSITIVE, True),
        (Attribute.EXTRACTABLE, False),
        (Attribute.ALWAYS_SENSITIVE, True),
        (Attribute.NEVER_EXTRACTABLE, True),
        (Attribute.LOCAL, True),
    ):
        try:
            fit = private[attribute] is expected
        except AttributeTypeInvalid:
            fit = False
        if not fit:
            raise KeyUnusable(
                f"the key `{name}` may have been copied: expected one that was made on the token and can't leave it"
            )


def _public(public: Any) -> ec.EllipticCurvePublicKey:
    """Its value. Raises KeyUnusable."""
    from pkcs11.util.ec import encode_ec_public_key

    try:
        key = load_der_public_key(encode_ec_public_key(public))
    except ValueError as error:
        raise KeyUnusable("a key on the token has a public half that can't be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyUnusable("a key on the token is not on P-256")
    return key


def _sign(wanted: Wanted, data: bytes, session: Session) -> bytes:
    from pkcs11 import Attribute, Mechanism, ObjectClass

    if wanted not in session.known:
        attributes = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute[wanted[0]]: wanted[1]}
        found = list(session.raw.get_objects(attributes))
        if len(found) != 1:
            raise Unavailable(f"there are {len(found)} such private keys on the token: expected one")
        session.known[wanted] = found[0]
    digest = hashlib.sha256(data).digest()
    raw = cast("bytes", session.known[wanted].sign(digest, mechanism=Mechanism.ECDSA))
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def _delete(name: str, session: Session) -> None:
    for kind in ("PRIVATE_KEY", "PUBLIC_KEY"):  # what can sign goes first
        for each in _ours(session, kind, name):
            session.known.pop(("ID", bytes(each.id)), None)
            each.destroy()
