"""Operators over the network: a certificate bound to verbs, on the operators' socket only (DESIGN 4.0, traps 10)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.model.caller import Operator, Verb
from broker.model.receipt import Receipt, ReceiptKind
from broker.service.gate import Gate
from broker.service.proofs import Asked
from broker.store import operators, receipts
from ca.errors import Denied, Malformed
from ca.runtime.database import Transaction


@dataclass(slots=True)
class KnownOperators:
    """Whose certificates the TLS handshake lets in, by fingerprint; read at start and after each change."""

    by_fingerprint: dict[str, Operator]
    anchors: tuple[bytes, ...] = ()

    def recognise(self, chain: Sequence[bytes]) -> Operator | None:
        """The operator whose very leaf this is."""
        return self.by_fingerprint.get(hashlib.sha256(chain[0]).hexdigest()) if chain else None


async def known(gate: Gate) -> KnownOperators:
    """What the store says now."""
    rows = await gate.world.database.read(operators.all_of)
    return KnownOperators({fingerprint: operator for operator, fingerprint in rows})


async def add(gate: Gate, asked: Asked, name: str, certificate_pem: str, verbs: Sequence[Verb]) -> Operator:
    """Bind a certificate to verbs.

    Raises:
        Denied: the caller may not, or gives a verb it has not.
        Malformed: not a certificate, or one that is a SPIFFE identity: those are issued to workloads.
        Duplicate: the name or the certificate is taken.
    """
    by = asked.demand(Verb.MANAGE_OPERATORS)
    if missing := set(verbs) - by.verbs:
        raise Denied(f"`{by.name}` can't give the verb `{min(missing)}`, which it has not")
    fingerprint = _fingerprint(certificate_pem)
    operator = Operator(name=name, verbs=frozenset(verbs))
    receipt = _receipt(asked, {"added": name, "verbs": sorted(verbs), "fingerprint": fingerprint})

    async def write(tx: Transaction) -> None:
        await operators.add(tx, operator, fingerprint, by.name, asked.now)
        await receipts.append(tx, gate.world.broker, receipt)

    await gate.world.database.write(write)
    return operator


async def remove(gate: Gate, asked: Asked, name: str) -> None:
    """Take an operator's verbs away. Raises Denied, NotFound."""
    asked.demand(Verb.MANAGE_OPERATORS)

    async def write(tx: Transaction) -> None:
        await operators.remove(tx, name)
        await receipts.append(tx, gate.world.broker, _receipt(asked, {"removed": name}))

    await gate.world.database.write(write, ending=True)


async def listed(gate: Gate, asked: Asked) -> Sequence[tuple[Operator, str]]:
    """Every operator with the fingerprint of its certificate. Raises Denied."""
    asked.demand(Verb.MANAGE_OPERATORS)
    return await gate.world.database.read(operators.all_of)


def _receipt(asked: Asked, body: dict[str, object]) -> Receipt:
    return Receipt(kind=ReceiptKind.OPERATOR_CHANGED, at=asked.now, actor=str(asked.caller), body=body)


def _fingerprint(pem: str) -> str:
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
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
