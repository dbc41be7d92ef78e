"""Operators over the network: a certificate bound to verbs, on the operators' socket only (DESIGN 4.0, traps 10)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.model.caller import Operator, Verb
from broker.model.receipt import Receipt, ReceiptKind
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.store import operators, receipts
from ca.errors import Denied, Malformed
from ca.runtime.database import Database, Transaction


class KnownOperators:
    """Whose certificates the TLS handshake lets in; read at start and after each change."""

    def __init__(self) -> None:
        self._by_fingerprint: dict[str, Operator] = {}
        self._ends: dict[Operator, datetime] = {}
        self._certificates: tuple[bytes, ...] = ()

    def recognise(self, chain: Sequence[bytes]) -> Operator | None:
        """The operator whose very leaf this is."""
        return self._by_fingerprint.get(hashlib.sha256(chain[0]).hexdigest()) if chain else None

    def anchors(self) -> Sequence[bytes]:
        """The certificates themselves, so that a handshake lets them come as far as `recognise`."""
        return self._certificates

    def knows(self, operator: Operator, now: datetime) -> bool:
        """Whether it still has these verbs, and its certificate has not expired."""
        ends = self._ends.get(operator)
        return ends is not None and now < ends

    async def refresh(self, database: Database) -> None:
        """Read the store again."""
        rows = await database.read(operators.all_of)
        self._by_fingerprint = {row.fingerprint: row.operator for row in rows}
        self._ends = {row.operator: _end_of(row.certificate) for row in rows}
        self._certificates = tuple(row.certificate for row in rows)


async def add(  # noqa: PLR0917 - who asks, then the operator's name, proof and verbs, then who must hear of it
    gate: Gate, asked: Asked, name: str, certificate_pem: str, verbs: Sequence[Verb], known: KnownOperators
) -> Operator:
    """Bind a certificate to verbs.

    Raises:
        Denied: the caller may not, or gives a verb it has not.
        Malformed: not a certificate, or one that is a SPIFFE identity: those are issued to workloads.
        Duplicate: the name or the certificate is taken.
    """
    by = asked.demand(Verb.MANAGE_OPERATORS)
    if missing := set(verbs) - by.verbs:
        raise Denied(f"`{by.name}` can't give the verb `{min(missing)}`, which it has not")
    certificate = _certificate(certificate_pem)
    fingerprint = hashlib.sha256(certificate).hexdigest()
    operator = Operator(name=name, verbs=frozenset(verbs))
    receipt = _receipt(asked, {"added": name, "verbs": sorted(verbs), "fingerprint": fingerprint})

    async def write(tx: Transaction) -> None:
        await operators.add(tx, operator, certificate, by.name, asked.now)
        await receipts.append(tx, gate.world.broker, receipt)

    await gate.world.database.write(write)
    gate.world.feed.set()  # heard by other brokers, which read theirs again
    await known.refresh(gate.world.database)
    return operator


async def remove(gate: Gate, asked: Asked, name: str, known: KnownOperators) -> None:
    """Take an operator's verbs away. Raises Denied, NotFound."""
    asked.demand(Verb.MANAGE_OPERATORS)

    async def write(tx: Transaction) -> None:
        await operators.remove(tx, name)
        await receipts.append(tx, gate.world.broker, _receipt(asked, {"removed": name}))

    await gate.world.database.write(write, ending=True)
    gate.world.feed.set()
    await known.refresh(gate.world.database)


async def listed(gate: Gate, asked: Asked) -> Sequence[operators.Known]:
    """Every operator with the fingerprint of its certificate. Raises Denied."""
    asked.demand(Verb.MANAGE_OPERATORS)
    return await gate.world.database.read(operators.all_of)


def _end_of(certificate: bytes) -> datetime:
    return x509.load_der_x509_certificate(certificate).not_valid_after_utc


def _receipt(asked: Asked, body: dict[str, object]) -> Receipt:
    return Receipt(kind=ReceiptKind.OPERATOR_CHANGED, at=asked.now, actor=str(asked.caller), body=body)


def _certificate(pem: str) -> bytes:
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    except ValueError as error:
        raise Malformed("expected one X.509 certificate in PEM") from error
    if any(uri.startswith("spiffe:") for uri in uris):
        raise Malformed("an operator's certificate must not be an SVID: those are issued to workloads, not to people")
    return certificate.public_bytes(Encoding.DER)
