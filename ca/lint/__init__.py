"""What must be true of everything we sign: one function per rule, every rule run on every `Prepared`.

The rules read the *bytes* that will be signed with a parser that did not write them, and hold them against what the
`Prepared` says and against the authority that will sign. A rule answers None, or what is wrong in words that finish
the sentence "the certificate ...". The whole list stands in the tables `X509_RULES` and `CA_RULES` (certificate),
`LEAF_RULES` (leaf), `JWT_RULES` and `WIT_RULES` (token) and `LIST_RULES` (revocation list), each row with the clause it
is for.
"""

from __future__ import annotations

from cryptography import x509
from joserfc.util import json_b64decode

from ca.errors import Malformed
from ca.lint.case import JwtCase, ListCase, X509Case
from ca.lint.certificate import CA_RULES, X509_RULES
from ca.lint.leaf import LEAF_RULES
from ca.lint.revocation_list import LIST_RULES
from ca.lint.token import JWT_RULES, WIT_RULES
from ca.profiles.prepared import Issuer, Kind, Prepared
from ca.profiles.template import certificate

_CERTIFICATES = frozenset({Kind.ROOT, Kind.ISSUING, Kind.LEAF})
TOKEN_RULES = {Kind.JWT: JWT_RULES, Kind.WIT: WIT_RULES}


class Unfit(Malformed):
    """A rule forbids signing this; what was asked for must change."""

    code = "unfit"


def check(prepared: Prepared, issuer: Issuer) -> None:
    """Run every rule for this kind; `issuer` is the authority that is about to sign.

    Raises:
        Unfit: a rule forbids it; `rule` in its details names the clause.
    """
    if prepared.kind in TOKEN_RULES:
        token = _read_token(prepared, issuer)
        for clause, token_rule in TOKEN_RULES[prepared.kind]:
            _refuse("token", clause, token_rule(token))
        return
    if prepared.kind is Kind.CRL:
        found = _read_list(prepared, issuer)
        for clause, list_rule in LIST_RULES:
            _refuse("revocation list", clause, list_rule(found))
        return
    if prepared.kind not in _CERTIFICATES:
        raise Unfit(f"nothing of the kind `{prepared.kind}` is signed: there are no rules for it", rule="sojourn, kind")
    case = _read_certificate(prepared, issuer)
    for clause, rule in X509_RULES + (LEAF_RULES if prepared.kind is Kind.LEAF else CA_RULES):
        _refuse("certificate", clause, rule(case))


def _refuse(noun: str, clause: str, finding: str | None) -> None:
    if finding is not None:
        raise Unfit(f"the {noun} {finding}", rule=clause)


def _read_certificate(prepared: Prepared, issuer: Issuer) -> X509Case:
    try:
        parsed = x509.load_der_x509_certificate(certificate(prepared.tbs, b""))
        extensions = {extension.oid: extension for extension in parsed.extensions}
        parsed.public_key()
    except (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise Unfit("the certificate can't be read back", rule="RFC 5280, 4.1") from error
    return X509Case(prepared=prepared, certificate=parsed, extensions=extensions, issuer=issuer)


def _read_list(prepared: Prepared, issuer: Issuer) -> ListCase:
    try:
        parsed = x509.load_der_x509_crl(certificate(prepared.tbs, b""))
        extensions = {extension.oid: extension for extension in parsed.extensions}
        parsed.issuer.public_bytes()
    except (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise Unfit("the revocation list can't be read back", rule="RFC 5280, 5.1") from error
    return ListCase(prepared=prepared, parsed=parsed, extensions=extensions, issuer=issuer)


def _read_token(prepared: Prepared, issuer: Issuer) -> JwtCase:
    try:
        header, claims = (json_b64decode(part) for part in prepared.tbs.split(b"."))
    except ValueError as error:
        raise Unfit("the token can't be read back", rule="JWT-SVID, 1") from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise Unfit("the token can't be read back", rule="JWT-SVID, 1")
    return JwtCase(prepared=prepared, header=header, claims=claims, issuer=issuer)
