"""Possession of a certificate's key: a machine that has a certificate already, of its maker or of a company's own CA.

    node    its chain
    server  a nonce
    node    a nonce of its own, and a signature over both, the leaf, and the key that is to be certified

The signature is bound to the key of the certificate request: whoever sits in between can carry the messages, but what
comes out of them is a certificate for a key it does not have. The chain must lead to one of the roots in the settings.
"""

from __future__ import annotations

import base64
import hashlib
import json
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
from cryptography.x509 import verification
from cryptography.x509.oid import NameOID
from pydantic import Field

from attestor.conversation import Conversation
from attestor.errors import BadConversation, NotProven
from attestor.methods.node.protocol import Attested, Occasion, parse_node_name
from attestor.selector import Selector, Selectors
from ca.errors import Malformed
from ca.runtime.settings import SecretReference, Settings, parsed_by

METHOD = "x509pop"

MOST_CERTIFICATES = 5
"""A leaf and up to four that lead to a root."""
LARGEST_RSA, SMALLEST_RSA = 8192, 2048
_NONCE = 32
_LABEL = b"sojourn x509pop 1\x00"
_LEAVES = verification.ExtensionPolicy.permit_all()
_AUTHORITIES = verification.ExtensionPolicy.webpki_defaults_ca()
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
        chain, key = _chain_of(self._settings.chain), _key_of(self._settings)
        if key.public_key() != chain[0].public_key():
            raise Malformed(f"the key is not that of the first certificate in `{self._settings.chain}`")
        await conversation.send(_written(chain=[_der(one) for one in chain]))
        (asked,) = _read(await conversation.receive(), "nonce")
        own = secrets.token_bytes(_NONCE)
        statement = _statement(_bytes(asked, _NONCE), own, chain[0], self._public_key)
        await conversation.send(_written(nonce=own, signature=_signed(key, statement)))


class Verifier:
    """Knows the roots."""

    def __init__(self, settings: VerifierSettings, occasion: Occasion) -> None:
        self._settings, self._occasion = settings, occasion

    async def verify(self, conversation: Conversation) -> Attested:
        """Two messages, one question. Raises NotProven, BadConversation, Malformed."""
        (texts,) = _read(await conversation.receive(), "chain")
        chain = _certificates(texts)
        _bounded(chain)
        shown = self._path(chain)
        nonce = secrets.token_bytes(_NONCE)
        await conversation.send(_written(nonce=nonce))
        theirs, signature = _read(await conversation.receive(), "nonce", "signature")
        statement = _statement(nonce, _bytes(theirs, _NONCE), shown.leaf, self._occasion.public_key)
        _check(shown.leaf, _bytes(signature), statement)
        return self._attested(shown)

    def _path(self, chain: Sequence[x509.Certificate]) -> _Shown:
        roots = [one for path in self._settings.roots for one in _chain_of(path)]
        builder = verification.PolicyBuilder().store(verification.Store(roots))
        builder = builder.time(self._occasion.now).max_chain_depth(MOST_CERTIFICATES)
        verifier = builder.extension_policies(ca_policy=_AUTHORITIES, ee_policy=_LEAVES).build_client_verifier()
        try:
            path = verifier.verify(chain[0], list(chain[1:])).chain
        except (verification.VerificationError, ValueError, UnsupportedAlgorithm) as error:
            raise NotProven("the certificate does not lead to a root this server knows, or is not valid now") from error
        if len(path) < 2:
            raise NotProven("a root itself is no machine's certificate")
        _may_sign(path[0])
        return _Shown(path[0], path[-1])

    def _attested(self, shown: _Shown) -> Attested:
        leaf, common = shown.leaf, _common_name(shown.leaf)
        facts = {
            "key": _sha256(_spki(leaf))[:32],
            "fingerprint": _sha256(_der(leaf))[:32],
            "cn": common.lower(),
            "serial": f"{leaf.serial_number:x}",
        }
        try:
            name = parse_node_name(_PLACEHOLDER.sub(lambda found: facts[found[1]], self._settings.name))
        except Malformed as error:
            raise NotProven("the certificate gives no name a node can have") from error
        said = [
            f"fingerprint:{_sha256(_der(leaf))}",
            f"key:{_sha256(_spki(leaf))}",
            f"serialnumber:{leaf.serial_number:x}",
            f"ca:fingerprint:{_sha256(_der(shown.root))}",
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
    digests = (_der(leaf), public_key)
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
    try:
        found = {type(one.value): one.value for one in leaf.extensions}
    except (ValueError, UnsupportedAlgorithm) as error:
        raise NotProven("the certificate's extensions can't be read") from error
    constraints, usage = found.get(x509.BasicConstraints), found.get(x509.KeyUsage)
    if isinstance(constraints, x509.BasicConstraints) and constraints.ca:
        raise NotProven("the certificate is an authority's and stands for no machine")
    if isinstance(usage, x509.KeyUsage) and not usage.digital_signature:
        raise NotProven("the certificate's key is not for signatures")


def _bounded(chain: Sequence[x509.Certificate]) -> None:
    """Keys a stranger brings are looked at before anything is checked with one. Raises NotProven."""
    for one in chain:
        key = one.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            fits = SMALLEST_RSA <= key.key_size <= LARGEST_RSA and key.public_numbers().e.bit_length() <= 32
        else:
            fits = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES
        if not fits:
            raise NotProven("a key of the chain is neither RSA of 2048 to 8192 bits nor on P-256, P-384 or P-521")


def _chain_of(path: Path) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise Malformed(f"`{path}` can't be read: {(error.strerror or 'unknown reason').lower()}") from error
    except ValueError as error:
        raise Malformed(f"`{path}` does not hold certificates in PEM") from error
    return found


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


def _certificates(texts: object) -> list[x509.Certificate]:
    if not isinstance(texts, list) or not 0 < len(texts) <= MOST_CERTIFICATES:
        raise BadConversation(f"the proof's chain must have 1 to {MOST_CERTIFICATES} certificates")
    try:
        found = [x509.load_der_x509_certificate(_bytes(one)) for one in texts]
        for one in found:
            one.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadConversation("the proof's chain must be certificates in DER") from error
    return found


def _common_name(leaf: x509.Certificate) -> str:
    try:
        names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return ""
    return names[0].value if len(names) == 1 and isinstance(names[0].value, str) else ""


def _read(message: bytes, *keys: str) -> list[object]:
    try:
        said = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise BadConversation("a message of this proof must be JSON") from error
    if not isinstance(said, dict) or said.keys() != set(keys):
        raise BadConversation(f"this message must hold {' and '.join(f'`{key}`' for key in keys)}, and nothing else")
    return [said[key] for key in keys]


def _bytes(text: object, length: int | None = None) -> bytes:
    try:
        found = base64.b64decode(text if isinstance(text, str) else "=", validate=True)
    except ValueError as error:
        raise BadConversation("a message of this proof holds what is not base64") from error
    if length is not None and len(found) != length:
        raise BadConversation(f"a nonce has {length} bytes")
    return found


def _written(**said: bytes | list[bytes]) -> bytes:
    def text(value: bytes | list[bytes]) -> str | list[str]:
        return [_text(one) for one in value] if isinstance(value, list) else _text(value)

    return json.dumps({key: text(value) for key, value in said.items()}).encode()


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
