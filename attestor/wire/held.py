"""Bodies of the operators' verbs of a node agent: what is held for whom, and why a process gets what it gets."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from attestor.wire.admin import Body, IdentityView, UnmatchedView


class HeldIdentity(Body):
    """One identity of a process; `expires_at` is empty while no certificate is held for it."""

    spiffe_id: str
    rule: str
    hint: str
    expires_at: str


class HeldView(Body):
    """One line of `GET /v1/held`: an instance; never a key."""

    instance: str
    pid: int
    uid: int | None
    strength: str
    calls: int
    ended: bool
    identities: list[HeldIdentity]


class HeldList(Body):
    """`GET /v1/held`: the live set, and the counter it is reported under."""

    counter: int
    held: list[HeldView]


class ExplainProcess(Body):
    """`POST /v1/explain`: what would this process get, and why."""

    pid: Annotated[int, Field(ge=1)]


class SourceView(Body):
    """What one source said of it, or in `unsaid` why it said nothing."""

    name: str
    selectors: list[str]
    unsaid: str


class EnclosureView(Body):
    """A container, pod or unit it is in: what `bind` could make an instance of; `watched` says whether we can."""

    kind: str
    cgroup: str
    version: int
    watched: bool
    instance: str


class AncestorView(Body):
    """One of its living parents that holds something."""

    pid: int
    instance: str
    spiffe_ids: list[str]


class ProcessExplained(Body):
    """What was found out about it, which identities that gives, and why no other."""

    pid: int
    instance: str
    selectors: list[str]
    strength: str
    sources: list[SourceView]
    within: list[EnclosureView]
    ancestors: list[AncestorView]
    identities: list[IdentityView]
    unmatched: list[UnmatchedView]


class NodeHealth(Body):
    """`GET /v1/health`.

    Of the certificates of processes that live, one expires first, at `first_expires_at`, and one last: until then these
    processes go on although the attestor server is away. Both are empty when none is held.
    """

    ready: bool
    waiting_for: str
    spiffe_id: str
    expires_at: str
    rules_version: str
    processes: int
    first_expires_at: str
    last_expires_at: str
