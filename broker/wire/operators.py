"""Bodies of /v1/operators: a certificate bound to verbs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from broker.model.caller import Verb
from broker.wire.body import Asked, Page, Told


class AddOperator(Asked):
    """Who, which certificate (PEM, not an SVID), and what it may do."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@-]{0,62}$")]
    certificate: Annotated[str, StringConstraints(max_length=16384)]
    verbs: Annotated[list[Annotated[Verb, Field(strict=False)]], Field(min_length=1, max_length=32)]


class OperatorTold(Told):
    """An operator; `fingerprint` is the SHA-256 of its certificate."""

    name: str
    verbs: list[str]
    fingerprint: str | None = None


class OperatorPage(Page[OperatorTold]):
    """Operators by name."""
