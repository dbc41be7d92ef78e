"""The rules for a JWT-SVID (JWT-SVID.md 2 and 3) and for a WIT-SVID (WIT-SVID.md 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable

from ca.lint.case import LONGEST_LIST, JwtCase, instance_form, own_member
from ca.profiles import jwt
from ca.spiffe import jwk, witsvid
from ca.spiffe.id import LONGEST_ID
from ca.spiffe.jose import INSTANCE_CLAIM

JwtRule = Callable[[JwtCase], str | None]


def has_the_header(case: JwtCase) -> str | None:
    """ES256, the key that signs, JWT, and nothing else."""
    if case.prepared.issuer_key_id != case.issuer.key_id:
        return "was prepared for another key"
    expected = {"alg": jwt.ALGORITHM, "kid": jwt.kid(case.issuer.key_id), "typ": "JWT"}
    return None if case.header == expected else "has another header than `alg`, `kid` and `typ` as its key demands"


def has_the_wit_header(case: JwtCase) -> str | None:
    """ES256, the key that signs, the type of a WIT, and nothing else."""
    if case.prepared.issuer_key_id != case.issuer.key_id:
        return "was prepared for another key"
    expected = {"alg": jwt.ALGORITHM, "kid": jwt.kid(case.issuer.key_id), "typ": witsvid.TYPE}
    return None if case.header == expected else "has another header than `alg`, `kid` and `typ` as its key demands"


def has_its_subject(case: JwtCase) -> str | None:
    """`sub` is the SPIFFE ID that is recorded, a member of the key's own trust domain."""
    if case.claims.get("sub") != str(case.prepared.subject):
        return "has another subject than was to be recorded"
    return own_member(case.prepared, case.issuer) or (None if case.prepared.subject.path else "is for no member")


def has_an_audience(case: JwtCase) -> str | None:
    """`aud` is a list of at least one name, none empty, none twice."""
    audience = case.claims.get("aud")
    if not isinstance(audience, list) or audience != list(case.prepared.audience):
        return "has another audience than was asked for"
    if not 1 <= len(audience) <= LONGEST_LIST or len(set(audience)) != len(audience):
        return f"needs 1 to {LONGEST_LIST} different audiences"
    if not all(isinstance(name, str) and 1 <= len(name) <= LONGEST_ID for name in audience):
        return f"has an audience that is empty or longer than {LONGEST_ID} characters"
    return None


def expires_in_time(case: JwtCase) -> str | None:
    """`iat` and `exp` are whole seconds, what is recorded, in this order and within the key's life."""
    issued, expires = case.claims.get("iat"), case.claims.get("exp")
    if type(issued) is not int or type(expires) is not int:
        return "lacks a whole number in `iat` or `exp`"
    if (issued, expires) != (case.prepared.not_before.timestamp(), case.prepared.not_after.timestamp()):
        return "has another validity than was to be recorded"
    if issued >= expires:
        return "expires before it is issued"
    return "would outlive its key" if case.prepared.not_after > case.issuer.not_after else None


def has_its_number(case: JwtCase) -> str | None:
    """`jti` spells the number that is recorded."""
    if case.claims.get("jti") != f"{case.prepared.serial:032x}" or case.prepared.serial.bit_length() < 64:
        return "has another number than was to be recorded, or one that can be guessed"
    return None


def claims_its_instance(case: JwtCase) -> str | None:
    """The instance claim is what is recorded, and absent when there is none."""
    if case.claims.get(INSTANCE_CLAIM) != case.prepared.instance:
        return "does not name the instance that was to be recorded"
    return instance_form(case.prepared)


def has_its_issuer(case: JwtCase) -> str | None:
    """`iss` is what the settings say, and absent when they say nothing."""
    found = case.claims.get("iss")
    return None if found == (case.issuer.jwt_issuer or None) else "has another `iss` than the settings name"


def has_no_other_claim(case: JwtCase) -> str | None:
    """Nothing that changes fast or that others might read as authority."""
    other = set(case.claims) - {"sub", "aud", "iat", "exp", "jti", "iss", INSTANCE_CLAIM}
    return f"has the claim `{ascii(min(other)[:80])[1:-1]}`, which is not in its profile" if other else None


def confirms_a_public_key(case: JwtCase) -> str | None:
    """`cnf` is one public key that can sign proofs, with the algorithm for them, and nothing that gives it away."""
    confirmation = case.claims.get("cnf")
    element = confirmation.get("jwk") if isinstance(confirmation, dict) and len(confirmation) == 1 else None
    if not isinstance(element, dict):
        return "has no `cnf` that is a `jwk` and nothing else"
    key = jwk.read_key(element)
    if key is None or element != jwk.of_confirmation(key):
        return "confirms another thing than a public key with the algorithm of its proofs"
    return None


def has_no_other_wit_claim(case: JwtCase) -> str | None:
    """No audience, no issuer, nothing that changes fast."""
    other = set(case.claims) - {"sub", "iat", "exp", "jti", "cnf", INSTANCE_CLAIM}
    return f"has the claim `{ascii(min(other)[:80])[1:-1]}`, which is not in its profile" if other else None


JWT_RULES: tuple[tuple[str, JwtRule], ...] = (
    ("JWT-SVID, 2", has_the_header),
    ("JWT-SVID, 3.1", has_its_subject),
    ("JWT-SVID, 3.2", has_an_audience),
    ("JWT-SVID, 3.3", expires_in_time),
    ("RFC 7519, 4.1.7", has_its_number),
    ("sojourn, instance", claims_its_instance),
    ("RFC 7519, 4.1.1", has_its_issuer),
    ("JWT-SVID, 3", has_no_other_claim),
)

WIT_RULES: tuple[tuple[str, JwtRule], ...] = (
    ("WIT-SVID, 2", has_the_wit_header),
    ("WIT-SVID, 3.1", has_its_subject),
    ("WIT-SVID, 3.2", confirms_a_public_key),
    ("WIT-SVID, 3.4", expires_in_time),
    ("RFC 7519, 4.1.7", has_its_number),
    ("sojourn, instance", claims_its_instance),
    ("WIT-SVID, 3.8", has_no_other_wit_claim),
)
