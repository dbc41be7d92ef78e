"""Bodies of the operators' verbs on the identity side: JSON over each process's admin socket."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SelectorText = Annotated[str, Field(max_length=4096)]


class Body(BaseModel):
    """What travels: nothing unknown, nothing changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenRequest(Body):
    """`POST /v1/tokens`: a join token, for one named node or for any."""

    node: Annotated[str | None, Field(max_length=64)] = None
    ttl_seconds: Annotated[int, Field(ge=1, le=24 * 3600)] = 600


class TokenAnswer(Body):
    """The one answer that holds the token."""

    id: str
    token: Annotated[str, Field(repr=False)]
    node: str | None
    expires_at: str


class NodeView(Body):
    """One line of `GET /v1/nodes`."""

    id: str
    spiffe_id: str
    state: str
    method: str
    selectors: list[str]
    admitted_at: str
    seen_at: str
    observed: bool
    live_instances: int


class NodeList(Body):
    """`GET /v1/nodes`."""

    nodes: list[NodeView]


class NodeAnswer(Body):
    """`POST /v1/nodes/{id}/evict`, `/ban` and `/unban`: what became of the node."""

    id: str
    state: str
    ended_instances: int


class RuleView(Body):
    """One rule in force."""

    name: str
    nodes: list[str]
    when: list[str]
    spiffe_id: str
    hint: str
    bind: str
    children: bool
    strength: str
    x509_ttl_seconds: int
    jwt_ttl_seconds: int
    dns_names: list[str]
    audiences: list[str]
    federates_with: list[str]
    source: str


class RuleList(Body):
    """`GET /v1/rules`, and what a reload answers; `trouble` says why the newest files are not in force."""

    version: str
    rules: list[RuleView]
    warnings: list[str]
    trouble: list[str]


class ExplainRequest(Body):
    """`POST /v1/rules/explain`: what would a process with these selectors get on this node."""

    node: Annotated[str, Field(max_length=64)]
    selectors: Annotated[list[SelectorText], Field(max_length=512)]
    strength: str = "own-uid"


class IdentityView(Body):
    """An identity that would be given, and what would be issued for it."""

    spiffe_id: str
    rule: str
    hint: str
    bind: str
    x509_ttl_seconds: int
    jwt_ttl_seconds: int
    dns_names: list[str] = []
    audiences: list[str] = []
    federates_with: list[str] = []


class UnmatchedView(Body):
    """A rule that gave nothing, and which of its conditions failed."""

    rule: str
    reason: str


class ExplainAnswer(Body):
    """What the rules say."""

    node: str
    node_selectors: list[str]
    identities: list[IdentityView]
    unmatched: list[UnmatchedView]


class RuleDraft(Body):
    """`POST /v1/rules/difference`: what would be if the rule file `path` held `text`."""

    path: Annotated[str, Field(max_length=4096)]
    text: Annotated[str, Field(max_length=4 * 1024 * 1024)]


class ShiftView(Body):
    """What one instance would gain and lose; `default` is its default identity afterwards, if that is another one."""

    instance: str
    node: str
    gains: list[str]
    loses: list[str]
    changed: list[str]
    default: str | None


class RuleDifference(Body):
    """Which rules are others, and who would feel it; `instances` holds the first of those `affected`."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    warnings: list[str]
    version: str
    looked_at: int
    affected: int
    losing: int
    gaining: int
    instances: list[ShiftView]


class AuthorityView(Body):
    """One signing authority; never its key. `here` says whether this server holds it."""

    key_id: str
    kind: str
    state: str
    server: str
    here: bool
    issuer_key_id: str | None
    in_bundle: bool
    forced: bool
    published_at: str
    not_before: str
    not_after: str
    signed_until: str


class AnchorView(Body):
    """A root whose key is kept elsewhere."""

    key_id: str
    servers: list[str]
    subject: str
    not_after: str


class AuthorityList(Body):
    """`GET /v1/authorities`, as the server `server` sees them."""

    server: str
    sequence: int
    authorities: list[AuthorityView]
    anchors: list[AnchorView]
    warnings: list[str]


class FederatedView(Body):
    """A foreign trust domain; `given_on` says whether identities that federate with it are shown its bundle."""

    trust_domain: str
    source: str
    url: str | None
    profile: str | None
    spiffe_id: str | None
    given_on: bool
    sequence: int | None
    x509_authorities: int
    jwt_authorities: int
    wit_authorities: int
    fetched_at: str | None
    due_at: str | None
    failures: int
    trouble: str


class FederationList(Body):
    """`GET /v1/federation`, and what each change of it answers."""

    domains: list[FederatedView]


class BundleRequest(Body):
    """`POST /v1/federation/{id}`: a bundle in the SPIFFE form, as the text it is."""

    document: Annotated[str, Field(max_length=1024 * 1024)]


class RotateRequest(Body):
    """`POST /v1/authorities/rotate`; `at_once` does not wait until peers were told of the new key."""

    kind: Literal["root", "issuing", "jwt", "wit"]
    at_once: bool = False
    dry_run: bool = False


class WithdrawRequest(Body):
    """`POST /v1/authorities/{id}/taint` and `/revoke`, `POST /v1/servers/{id}/forget`."""

    dry_run: bool = False


class AuthorityMove(Body):
    """What becomes of one; `before` is empty and `key_id` as well for one that is still to be made."""

    key_id: str
    kind: str
    server: str
    before: str
    after: str


class AuthorityEffect(Body):
    """What was done, or would be: states, and how much of what these authorities signed is still valid."""

    dry_run: bool
    changes: list[AuthorityMove]
    x509_svids: int
    jwt_svids: int
    wit_svids: int
    leaves_bundle: list[str]
    signs_at: str | None


class InstanceView(Body):
    """One line of `GET /v1/instances`."""

    instance: str
    node: str
    state: str
    reason: str
    strength: str
    bound: bool
    identities: list[str]
    began_at: str
    leaves: int


class InstanceList(Body):
    """`GET /v1/instances`, in the order of ids; `next` goes into `?after=`."""

    instances: list[InstanceView]
    next: str | None


class LeafName(Body):
    """One leaf: who signed it, and its number; both in hexadecimal, as `sojourn svid fetch` shows them."""

    issuer_key_id: Annotated[str, Field(pattern=r"^(?:[0-9a-f]{2}){1,64}$")]
    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{1,40}$")]


class RevocationRequest(Body):
    """`POST /v1/revocations`: exactly one of `leaf`, `instance`, `node` and `under` (a path below the trust domain)."""

    leaf: LeafName | None = None
    instance: Annotated[str | None, Field(max_length=64)] = None
    node: Annotated[str | None, Field(max_length=64)] = None
    under: Annotated[str | None, Field(max_length=2048)] = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(one is not None for one in (self.leaf, self.instance, self.node, self.under)) != 1:
            raise ValueError("expected exactly one of `leaf`, `instance`, `node` and `under`")
        return self


class RevokedLeaf(LeafName):
    """A leaf that is taken back."""

    spiffe_id: str
    instance: str | None
    not_after: str


class RevocationAnswer(Body):
    """What was hit, or would be; the lists end after a thousand, the counts don't."""

    dry_run: bool
    node: str | None
    instance_count: int
    instances: list[str]
    leaf_count: int
    leaves: list[RevokedLeaf]


class RiskView(Body):
    """Something that was refused, and that nobody honest does."""

    kind: str
    subject: str
    detail: str
    at: str


class RiskList(Body):
    """`GET /v1/risks`: the newest first, at most a hundred."""

    risks: list[RiskView]
