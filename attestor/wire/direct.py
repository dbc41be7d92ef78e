"""Bodies of `POST /v1/attest`: a platform's token and a certificate request, for SVIDs without a node agent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from attestor.wire.admin import Body

PATH = "/v1/attest"
MOST_AUDIENCES = 8

Audience = Annotated[str, Field(min_length=1, max_length=2048)]


class AttestRequest(Body):
    """`platform` is the name the server's settings give the cluster or issuer; `csr` is PKCS#10, DER in base64."""

    method: Literal["k8s_token", "oidc"]
    platform: Annotated[str, Field(min_length=1, max_length=64)]
    token: Annotated[str, Field(min_length=1, max_length=16 * 1024, repr=False)]
    csr: Annotated[str, Field(min_length=1, max_length=12 * 1024)]
    spiffe_id: Annotated[str | None, Field(max_length=2048)] = None
    """Only this one of the identities the rules give; left out: all of them, the default first."""
    audience: Annotated[tuple[Audience, ...], Field(max_length=MOST_AUDIENCES)] = ()
    """For whom JWT-SVIDs are wanted besides; none: none."""


class DirectSvid(Body):
    """One identity: `x509_svid` is the chain in PEM, leaf first; its key is the one of the request."""

    spiffe_id: str
    hint: str
    x509_svid: str
    expires_at: str
    jwt_svid: Annotated[str | None, Field(repr=False)] = None


class AttestAnswer(Body):
    """What the rules give. Ask again before `renew_by`: whoever does not has ended."""

    instance: str
    svids: list[DirectSvid]
    trust_domain: str
    bundle: dict[str, Any]
    """The trust domain's, a JWK Set in the SPIFFE form."""
    renew_by: str
