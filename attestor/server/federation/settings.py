"""What the operator may say about a foreign trust domain's endpoint (SPIFFE_Federation.md 5.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import model_validator

from attestor.server.federation.endpoint import Endpoint, Profile
from ca.runtime.fetch import parse_url
from ca.runtime.settings import Settings, parsed_by
from ca.spiffe.id import SpiffeId, TrustDomain


def _bundle_url(text: str) -> str:
    parse_url(text)
    return text


class FederatedDomain(Settings):
    """A foreign trust domain, and where its bundle is: URL, profile and name are all said, and none is inferred."""

    trust_domain: Annotated[TrustDomain, parsed_by(TrustDomain.parse)]
    url: Annotated[str, parsed_by(_bundle_url)]
    profile: Literal["https_web", "https_spiffe"]
    spiffe_id: Annotated[SpiffeId, parsed_by(SpiffeId.parse)] | None = None
    """Of the endpoint's server, with `https_spiffe`."""
    bundle: Path | None = None
    """The bundle by which that server is known the first time; PEM, or a JWK Set in the SPIFFE form."""
    ca_file: Path | None = None
    """With `https_web`: whom its certificate must come from, if not the system's roots."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.profile == "https_web" and (self.spiffe_id is not None or self.bundle is not None):
            raise ValueError("`spiffe_id` and `bundle` are for `https_spiffe`")
        if self.profile == "https_spiffe" and self.ca_file is not None:
            raise ValueError("`ca_file` is for `https_web`")
        if self.profile == "https_spiffe" and (self.spiffe_id is None or not self.spiffe_id.path):
            raise ValueError("`https_spiffe` needs the server's `spiffe_id`, with a path")
        if self.spiffe_id is not None and self.spiffe_id.trust_domain == self.trust_domain and self.bundle is None:
            raise ValueError("an endpoint of its own trust domain needs `bundle`, to be known by the first time")
        return self

    def endpoint(self) -> Endpoint:
        """For the one who follows it."""
        return Endpoint(
            trust_domain=self.trust_domain,
            url=self.url,
            profile=Profile(self.profile),
            server=self.spiffe_id,
            bundle=self.bundle,
            ca_file=self.ca_file,
        )
