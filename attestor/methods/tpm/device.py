"""A node's own TPM, over the TCG's software stack (`tpm2-pytss`, the extra `tpm`).

Nothing is stored: endorsement and attestation key are primaries, which a TPM makes anew from its seed, the same each
time. Every call here waits for the TPM; callers give it a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives import serialization

from attestor.methods.tpm.credential import Kind
from attestor.methods.tpm.structures import ATTESTATION_KEY
from ca.errors import Malformed, Unavailable

_TEMPLATES: Mapping[str, str] = MappingProxyType(
    {"rsa-2048": "EK-RSA2048", "p-256": "EK-ECC256", "p-384": "EK-HIGH-ECC384"}
)
_FIRST_NV, _MOST_NV = 0x01000000, 254


@dataclass(frozen=True, slots=True)
class Shown:
    """What a TPM is known by: a SubjectPublicKeyInfo, its maker's certificate in DER or nothing, and a TPMT_PUBLIC."""

    endorsement_key: bytes
    certificate: bytes
    attestation_key: bytes


@dataclass(frozen=True, slots=True)
class Quoted:
    """A TPMS_ATTEST, a TPMT_SIGNATURE, and the values of the registers, in the order of their indices."""

    statement: bytes
    signature: bytes
    values: list[bytes]


class Device:
    """The TPM at `tcti`, such as `device:/dev/tpmrm0`, with its keys loaded; one for each proof.

    Raises:
        Malformed: `sojourn[tpm]` is not installed.
        Unavailable: the TPM does not answer, or refuses; every method may.
    """

    def __init__(self, tcti: str, kind: Kind) -> None:
        try:
            import tpm2_pytss as tss
        except ImportError as error:
            raise Malformed("a proof by TPM needs `tpm2-pytss`: install `sojourn[tpm]`") from error
        self._tss, self._tcti, self._kind = tss, tcti, kind
        self._loaded: list[Any] = []
        with self._asking():
            self._esapi = tss.ESAPI(tcti)
        try:
            with self._asking():
                certificate, template = self._template()
                self._endorsement, endorsement = self._primary(template)
                self._attestation, attestation = self._primary(_attestation_key(tss))
        except BaseException:
            self.close()
            raise
        self.shown = Shown(_spki(endorsement), certificate, bytes(attestation.publicArea.marshal()))

    def activate(self, id_object: bytes, seed: bytes) -> bytes:
        """The secret of a credential that was made for this TPM and its attestation key."""
        with self._asking(), self._session() as session:
            found = self._esapi.activate_credential(
                self._attestation,
                self._endorsement,
                self._tss.TPM2B_ID_OBJECT(credential=id_object),
                self._tss.TPM2B_ENCRYPTED_SECRET(secret=seed),
                session2=session,
            )
        return bytes(found)

    def quote(self, extra: bytes, pcrs: Sequence[int]) -> Quoted:
        """What the registers `pcrs` of the bank SHA-256 hold, in the TPM's own words."""
        selection = f"sha256:{','.join(str(one) for one in pcrs)}" if pcrs else self._tss.TPML_PCR_SELECTION()
        with self._asking():
            values = [self._read(index) for index in pcrs]
            statement, signature = self._esapi.quote(self._attestation, selection, extra)
        return Quoted(bytes(statement), bytes(signature.marshal()), values)

    def close(self) -> None:
        """Leave the TPM as it was."""
        try:
            with self._asking():
                while self._loaded:
                    self._esapi.flush_context(self._loaded.pop())
        finally:
            self._esapi.close()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except (self._tss.TSS2_Exception, ValueError, IndexError, RuntimeError) as error:
            raise Unavailable(f"the TPM at `{self._tcti}` can't be used: {error}") from error

    @contextmanager
    def _session(self) -> Iterator[Any]:
        """By which the endorsement key may be used; the TPM ends it with the use, and has room for few."""
        tss = self._tss
        if self._kind == "p-384":  # of the high templates the empty password is enough
            yield tss.ESYS_TR.PASSWORD
            return
        plain, none = tss.TPMT_SYM_DEF(algorithm=tss.TPM2_ALG.NULL), tss.ESYS_TR.NONE
        session = self._esapi.start_auth_session(none, none, tss.TPM2_SE.POLICY, plain, tss.TPM2_ALG.SHA256)
        try:
            self._esapi.policy_secret(tss.ESYS_TR.ENDORSEMENT, session, b"", b"", b"", 0)
            yield session
        except BaseException:
            self._esapi.flush_context(session)
            raise

    def _read(self, index: int) -> bytes:
        _, _, digests = self._esapi.pcr_read(f"sha256:{index}")
        if len(digests) != 1:
            raise Unavailable(f"this TPM has no register {index} in the bank SHA-256")
        return bytes(digests[0])

    def _primary(self, template: Any) -> tuple[Any, Any]:
        tss = self._tss
        made = self._esapi.create_primary(tss.TPM2B_SENSITIVE_CREATE(), template, tss.ESYS_TR.ENDORSEMENT)
        self._loaded.append(made[0])
        return made[0], made[1]

    def _template(self) -> tuple[bytes, Any]:
        """The endorsement key's certificate, if the maker put one there, and how the key is made."""
        from tpm2_pytss.utils import NoSuchIndex, NVReadEK, create_ek_template

        tss, read = self._tss, NVReadEK(self._esapi)
        _, there = self._esapi.get_capability(tss.TPM2_CAP.HANDLES, _FIRST_NV, _MOST_NV)
        known = {int(one) for one in there.data.handles}

        def look(index: int) -> bytes:
            if int(index) not in known:
                raise NoSuchIndex(index)
            return bytes(read(index))

        certificate, template = create_ek_template(_TEMPLATES[self._kind], look)
        return _trimmed(certificate or b""), template


def _attestation_key(tss: Any) -> Any:
    attributes = tss.TPMA_OBJECT(ATTESTATION_KEY)
    return tss.TPM2B_PUBLIC.parse("ecc256:ecdsa-sha256:null", objectAttributes=attributes)


def _spki(public: Any) -> bytes:
    key = serialization.load_der_public_key(public.to_der())
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _trimmed(content: bytes) -> bytes:
    """A certificate without what fills up its place in the TPM."""
    if len(content) < 4 or content[:2] != b"\x30\x82":
        return content
    return content[: 4 + int.from_bytes(content[2:4], "big")]
