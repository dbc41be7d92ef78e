"""A machine's TPM: its endorsement key is known to the operator or certified by its maker, and it speaks for itself.

    node    its endorsement key with the certificate, if it has one, and an attestation key
    server  a secret that only that TPM can open, if it holds that attestation key, and the registers it wants to know
    node    their values, and a quote of them over the secret and the key that is to be certified

The secret itself never travels: the quote holds an HMAC by it. So one signature shows that the attestation key is in
the TPM (it opened the secret), that the quote was made now (the secret is of this attestation), and for which request.
Whoever carries the messages between a server and a TPM gets a certificate for a key it does not have.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from pydantic import Field, model_validator

from attestor.conversation import Conversation
from attestor.errors import BadConversation, NotProven
from attestor.methods.node import chains, turns
from attestor.methods.node.protocol import Attested, Occasion
from attestor.methods.tpm.credential import EndorsementKey, Kind, kind_of, make_credential
from attestor.methods.tpm.device import Device, Quoted
from attestor.methods.tpm.structures import PCRS, AttestationKey, Quote
from attestor.selector import Selector, Selectors
from ca.errors import Malformed
from ca.runtime.settings import Settings

METHOD = "tpm"
EK_CERTIFICATE = x509.ObjectIdentifier("2.23.133.8.1")
"""The extended key usage of an endorsement key's certificate."""
_SECRET = 32
_LABEL = b"sojourn tpm 1\x00"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Index = Annotated[int, Field(ge=0, lt=PCRS)]


class VerifierSettings(Settings):
    """Which TPMs the server knows, and in what state their machines must be."""

    kind: Kind = "rsa-2048"
    """One for all: a TPM has an endorsement key of each kind, and a machine must have one name."""
    keys: Path | None = None
    """A file with the SHA-256 of an endorsement key (a SubjectPublicKeyInfo) on each line; read anew for each proof."""
    roots: tuple[Path, ...] = ()
    """PEM files of TPM makers' authorities, roots or below; read anew for each proof."""
    pcrs: Mapping[Index, tuple[Digest, ...]] = {}
    """Registers that are quoted (bank SHA-256), and what each may hold; with nothing named it may hold anything."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.keys is None and not self.roots:
            raise ValueError("a TPM is known by `keys` or by `roots`: expected at least one of them")
        return self

    def listed(self) -> frozenset[str]:
        """Those of `keys`. Raises Malformed."""
        if self.keys is None:
            return frozenset()
        try:
            lines = [line.partition("#")[0].strip() for line in self.keys.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise Malformed(f"`{self.keys}` can't be read") from error
        found = frozenset(line for line in lines if line)
        if not all(len(one) == 64 and set(one) <= set("0123456789abcdef") for one in found):
            raise Malformed(f"`{self.keys}` must hold a SHA-256 in lower-case hexadecimal digits on each line")
        return found

    def allows(self, index: int, value: str) -> bool:
        """Whether the register may hold this."""
        return index in self.pcrs and (not self.pcrs[index] or value in self.pcrs[index])


class ProverSettings(Settings):
    """Where the node agent's TPM is."""

    method: Literal["tpm"]
    tcti: str = "device:/dev/tpmrm0"
    """As the TCG's software stack names it."""
    kind: Kind = "rsa-2048"


class Prover:
    """Asks the TPM; its caller has checked the server before."""

    def __init__(self, settings: ProverSettings, public_key: bytes) -> None:
        self._settings, self._public_key = settings, public_key

    async def prove(self, conversation: Conversation) -> None:
        """Two messages. Raises Malformed, Unavailable, BadConversation."""
        tpm = await asyncio.to_thread(Device, self._settings.tcti, self._settings.kind)
        try:
            quoted = await self._quoted(tpm, conversation)
        finally:
            await asyncio.to_thread(tpm.close)
        await conversation.send(turns.written(quote=quoted.statement, signature=quoted.signature, pcrs=quoted.values))

    async def _quoted(self, tpm: Device, conversation: Conversation) -> Quoted:
        shown = tpm.shown
        await conversation.send(
            turns.written(ek=shown.endorsement_key, certificate=shown.certificate, ak=shown.attestation_key)
        )
        id_object, seed, wanted = turns.read(await conversation.receive(), "credential", "seed", "pcrs")
        pcrs = _indices(wanted)
        secret = await asyncio.to_thread(tpm.activate, turns.bytes_of(id_object), turns.bytes_of(seed))
        extra = _extra(secret, shown.endorsement_key, shown.attestation_key, self._public_key)
        return await asyncio.to_thread(tpm.quote, extra, pcrs)


@dataclass(frozen=True, slots=True)
class _Known:
    """An endorsement key that is believed to be a TPM's, and why: an authority, or the list."""

    key: EndorsementKey
    spki: bytes
    authority: x509.Certificate | None


class Verifier:
    """Knows the TPMs."""

    def __init__(self, settings: VerifierSettings, occasion: Occasion) -> None:
        self._settings, self._occasion = settings, occasion

    async def verify(self, conversation: Conversation) -> Attested:
        """Two messages, one question. Raises NotProven, BadConversation, Malformed."""
        ek, certificate, area = turns.read(await conversation.receive(), "ek", "certificate", "ak")
        ak_area = turns.bytes_of(area)
        ak = AttestationKey.parse(ak_area)
        known = self._known(turns.bytes_of(ek), certificate)
        secret, pcrs = secrets.token_bytes(_SECRET), sorted(self._settings.pcrs)
        made = make_credential(known.key, ak.name, secret)
        await conversation.send(turns.written(credential=made.id_object, seed=made.seed, pcrs=pcrs))
        said, signature, values = turns.read(await conversation.receive(), "quote", "signature", "pcrs")
        statement = turns.bytes_of(said)
        ak.check(statement, turns.bytes_of(signature))
        quote = Quote.parse(statement)
        if not hmac.compare_digest(quote.extra, _extra(secret, known.spki, ak_area, self._occasion.public_key)):
            raise NotProven("the quote is by no key of that TPM, or not for this request")
        return self._attested(known, self._state(quote, pcrs, values))

    def _known(self, spki: bytes, certificate: object) -> _Known:
        try:
            key = serialization.load_der_public_key(spki)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadConversation("the endorsement key must be a public key in DER") from error
        if not isinstance(key, EndorsementKey) or kind_of(key) != self._settings.kind:
            raise NotProven(f"the endorsement key is not of the kind that is taken here: `{self._settings.kind}`")
        if _spki(key) != spki:
            raise BadConversation("the endorsement key is not written in the one form it has")
        if chains.sha256(spki) in self._settings.listed():
            return _Known(key, spki, None)
        if not certificate or not self._settings.roots:
            raise NotProven("the endorsement key is not in the list, and no certificate of it is taken here")
        (leaf,) = chains.parse([certificate])
        path = chains.lead([leaf], self._settings.roots, self._occasion.now)
        usage = chains.extensions(leaf).get(x509.ExtendedKeyUsage)
        if not isinstance(usage, x509.ExtendedKeyUsage) or EK_CERTIFICATE not in list(usage):
            raise NotProven("the certificate is not of an endorsement key")
        if chains.spki(leaf) != spki:
            raise NotProven("the certificate is of another endorsement key")
        return _Known(key, spki, path[-1])

    def _state(self, quote: Quote, pcrs: list[int], values: object) -> dict[int, str]:
        if not isinstance(values, list) or len(values) != len(pcrs):
            raise BadConversation("the proof must hold a value for each register that was asked for")
        found = {index: turns.bytes_of(one, 32) for index, one in zip(pcrs, values, strict=True)}
        if not quote.covers(found):
            raise NotProven("the registers are not those the quote is of, or hold something else")
        for index, value in found.items():
            if not self._settings.allows(index, value.hex()):
                raise NotProven(f"the register {index} holds what it may not: {value.hex()}")
        return {index: value.hex() for index, value in found.items()}

    def _attested(self, known: _Known, state: Mapping[int, str]) -> Attested:
        digest = chains.sha256(known.spki)
        name = f"tpm-{digest[:40]}"
        said = [f"ek:{digest}", *(f"pcr:{index}:{value}" for index, value in state.items())]
        if known.authority is not None:
            said.append(f"ca:fingerprint:{chains.sha256(chains.der(known.authority))}")
        about = {Selector("node", f"name:{name}"), Selector("node", f"method:{METHOD}")}
        return Attested(node=name, selectors=frozenset(about | {Selector.parse(f"{METHOD}:{one}") for one in said}))


def departed(settings: VerifierSettings, selectors: Selectors) -> str:
    """Why a node admitted with `selectors` is no longer one that would be; empty when it is. Raises Malformed."""
    said = [one.value.split(":") for one in selectors if one.type == METHOD]
    state = {int(one[1]): one[2] for one in said if one[0] == "pcr"}
    if not any(one[0] == "ca" for one in said) and not {one[1] for one in said if one[0] == "ek"} & settings.listed():
        return "its endorsement key is no longer in the list"
    if not all(settings.allows(index, state.get(index, "")) for index in settings.pcrs):
        return "its machine was started in a state that is no longer allowed"
    return ""


def _extra(secret: bytes, ek: bytes, ak: bytes, public_key: bytes) -> bytes:
    """What the quote is over: only who opened the secret can say it, and only of these three keys."""
    digests = b"".join(hashlib.sha256(one).digest() for one in (ek, ak, public_key))
    return hmac.digest(secret, _LABEL + digests, "sha256")


def _indices(wanted: object) -> list[int]:
    if not isinstance(wanted, list) or not all(type(one) is int and 0 <= one < PCRS for one in wanted):
        raise BadConversation("the server asked for registers there are not")
    return sorted(set(wanted))


def _spki(key: EndorsementKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
