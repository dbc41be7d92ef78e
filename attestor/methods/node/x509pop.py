"""Possession of a certificate's key: a machine that has a certificate already, of its maker or of a company's own CA.

    node    its chain
    server  a nonce
    node    a nonce of its own, and a signature over both, the leaf, and the key that is to be certified

The signature is bound to the key of the certificate request: whoever sits in between can carry the messages, but what
comes out of them is a certificate for a key it does not have. The chain must lead to one of the roots in the settings.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from pydantic import Field

from attestor.conversation import Conversation
from attestor.errors import NotProven
from attestor.methods.node import chains, turns
from attestor.methods.node.protocol import Attested, Occasion, parse_node_name
from attestor.selector import Selector, Selectors
from ca.errors import Malformed
from ca.runtime.settings import SecretReference, Settings, parsed_by

METHOD = "x509pop"

_NONCE = 32
_LABEL = b"sojourn x509pop 1\x00"
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_UNIQUE = frozenset({"key", "fingerprint", "cn"})
_PLACEHOLDERS = _UNIQUE | {"serial"}


def _template(text: str) -> str:
    """A name that says which certificate it is of."""
    named = set(_PLACEHOLDER.findall(text))
    if not named <= _PLACEHOLDERS or not named & _UNIQUE:
        raise Malformed("a node's name needs `{key}`, `{fingerprint}` or `{cn}`, and may hold `{serial}`")
    try:
        parse_node_name(_PLACEHOLDER.sub("0", text))
    except Malformed as error:
        raise Malformed("with its placeholders filled in this is not a node's name") from error
    return text


class VerifierSettings(Settings):
    """What the server wants to know."""

    roots: Annotated[tuple[Path, ...], Field(min_length=1)]
    """PEM files, read anew for each proof."""
    name: Annotated[str, parsed_by(_template)] = "x509-{key}"
    """Of the node. With `{key}` or `{cn}` a certificate that was renewed is the same node."""


class ProverSettings(Settings):
    """What the node agent shows."""

    method: Literal["x509pop"]
    chain: Path
    """PEM, the leaf first; read anew each time, as is the key."""
    key: SecretReference
    """PEM, unencrypted."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """A chain that leads to a root: its leaf, and the authority it leads to."""

    leaf: x509.Certificate
    root: x509.Certificate


class Prover:
    """Shows the chain and signs; its caller has checked the server before."""

    def __init__(self, settings: ProverSettings, public_key: bytes) -> None:
        self._settings, self._public_key = settings, public_key

    async def prove(self, conversation: Conversation) -> None:
        """Two messages. Raises Malformed when chain or key can't be used, BadConversation."""
        chain, key = chains.load(self._settings.chain), _key_of(self._settings)
        if key.public_key() != chain[0].public_key():
            raise Malformed(f"the key is not that of the first certificate in `{self._settings.chain}`")
        await conversation.send(turns.written(chain=[chains.der(one) for one in chain]))
        (asked,) = turns.read(await conversation.receive(), "nonce")
        own = secrets.token_bytes(_NONCE)
        statement = _statement(turns.bytes_of(asked, _NONCE), own, chain[0], self._public_key)
        await conversation.send(turns.written(nonce=own, signature=_signed(key, statement)))


class Verifier:
    """Knows the roots."""

    def __init__(self, settings: VerifierSettings, occasion: Occasion) -> None:
        self._settings, self._occasion = settings, occasion

    async def verify(self, conversation: Conversation) -> Attested:
        """Two messages, one question. Raises NotProven, BadConversation, Malformed."""
        (texts,) = turns.read(await conversation.receive(), "chain")
        shown = self._path(chains.parse(texts))
        nonce = secrets.token_bytes(_NONCE)
        await conversation.send(turns.written(nonce=nonce))
        theirs, signature = turns.read(await conversation.receive(), "nonce", "signature")
        statement = _statement(nonce, turns.bytes_of(theirs, _NONCE), shown.leaf, self._occasion.public_key)
        _check(shown.leaf, turns.bytes_of(signature), statement)
        return self._attested(shown)

    def _path(self, chain: Sequence[x509.Certificate]) -> _Shown:
        path = chains.lead(chain, self._settings.roots, self._occasion.now)
        _may_sign(path[0])
        return _Shown(path[0], path[-1])

    def _attested(self, shown: _Shown) -> Attested:
        leaf, common = shown.leaf, _common_name(shown.leaf)
        facts = {
            "key": chains.sha256(chains.spki(leaf))[:32],
            "fingerprint": chains.sha256(chains.der(leaf))[:32],
            "cn": common.lower(),
            "serial": f"{leaf.serial_number:x}",
        }
        try:
            name = parse_node_name(_PLACEHOLDER.sub(lambda found: facts[found[1]], self._settings.name))
        except Malformed as error:
            raise NotProven("the certificate gives no name a node can have") from error
        said = [
            f"fingerprint:{chains.sha256(chains.der(leaf))}",
            f"key:{chains.sha256(chains.spki(leaf))}",
            f"serialnumber:{leaf.serial_number:x}",
            f"ca:fingerprint:{chains.sha256(chains.der(shown.root))}",
            f"not_after:{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
            *([f"subject:cn:{common}"] if common else ()),
        ]
        about = {Selector("node", f"name:{name}"), Selector("node", f"method:{METHOD}")}
        try:
            return Attested(node=name, selectors=frozenset(about | {Selector.parse(f"{METHOD}:{one}") for one in said}))
        except Malformed as error:
            raise NotProven("the certificate's subject can't be said in a selector") from error


def departed(selectors: Selectors, now: datetime) -> str:
    """Why a node admitted with `selectors` is no longer what it proved; empty when it is."""
    for one in selectors:
        if one.type == METHOD and one.value.startswith("not_after:"):
            ends = datetime.fromisoformat(one.value.removeprefix("not_after:"))
            return "the certificate it proved itself with has expired" if now > ends else ""
    return "nothing says until when its certificate was valid"


def _statement(nonce: bytes, own: bytes, leaf: x509.Certificate, public_key: bytes) -> bytes:
    """What is signed: both nonces, this certificate, and the key that is to be certified."""
    digests = (chains.der(leaf), public_key)
    return _LABEL + nonce + own + b"".join(hashlib.sha256(one).digest() for one in digests)


def _signed(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, statement: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(statement, _pss(), hashes.SHA256())
    return key.sign(statement, ec.ECDSA(_HASHES[key.curve.name]()))


def _check(leaf: x509.Certificate, signature: bytes, statement: bytes) -> None:
    key = leaf.public_key()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, statement, _pss(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, statement, ec.ECDSA(_HASHES[key.curve.name]()))
        else:
            raise NotProven("the certificate's key is neither RSA nor of a curve that is taken here")
    except InvalidSignature as error:
        raise NotProven("the signature is not by the certificate's key, or not for this request") from error


def _pss() -> padding.PSS:
    return padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)


def _may_sign(leaf: x509.Certificate) -> None:
    """Whether the leaf may stand for a machine. Raises NotProven."""
    usage = chains.extensions(leaf).get(x509.KeyUsage)
    if isinstance(usage, x509.KeyUsage) and not usage.digital_signature:
        raise NotProven("the certificate's key is not for signatures")


def _key_of(settings: ProverSettings) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(settings.key.read().reveal().encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed(f"`{settings.key}` is not an unencrypted private key in PEM") from None
    if isinstance(key, rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _HASHES
    ):
        return key
    raise Malformed(f"`{settings.key}` is neither RSA nor on P-256, P-384 or P-521")


def _common_name(leaf: x509.Certificate) -> str:
    try:
        names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return ""
    return names[0].value if len(names) == 1 and isinstance(names[0].value, str) else ""
