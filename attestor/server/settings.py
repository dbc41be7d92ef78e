"""What the operator of an attestor server may say."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attestor.methods.node.k8s_psat import VerifierSettings as PsatVerifierSettings
from attestor.methods.node.oidc import VerifierSettings as OidcVerifierSettings
from attestor.methods.node.tpm import VerifierSettings as TpmVerifierSettings
from attestor.methods.node.x509pop import VerifierSettings as X509PopVerifierSettings
from attestor.methods.platform.cluster import ClusterSettings
from attestor.methods.platform.oidc import IssuerSettings
from attestor.rules.model import ANY_NODE, Condition, Rule
from attestor.rules.owner import Owner, parse_name
from attestor.rules.owner import Path as OwnerPath
from attestor.rules.read import ConditionField, Terms
from attestor.rules.template import Template
from attestor.server.federation.domains import MOST_DOMAINS
from attestor.server.federation.settings import FederatedDomain
from ca.authority import AuthoritySettings
from ca.authority.settings import MAIN_SERVER, SHARE
from ca.authority.upstream import FileKey, RootKey, TokenRootKey, Upstream
from ca.errors import Malformed
from ca.keys.settings import KeySettings
from ca.revocation import PAUSE
from ca.runtime.crowd import MOST
from ca.runtime.database import checked
from ca.runtime.settings import Duration, SecretReference, Settings, parsed_by
from ca.spiffe.id import TrustDomain

Port = Annotated[int, Field(ge=0, le=65535)]


class Listen(Settings):
    """An address; port 0 lets the system choose."""

    host: str = "127.0.0.1"
    port: Port = 0


class Keys(KeySettings):
    """Where the authority's keys rest. Without `seal` keys on disk are refused: a key beside its lock is decoration.

    `module`, `token` and `pin` say which PKCS#11 token it is. With the store `pkcs11` keys are made there and never
    leave it; with `disk` and `seal_label` the sealing key is a secret there.
    """

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.store == "disk" and (self.folder is None or (self.seal is None) == (self.seal_label is None)):
            raise ValueError("keys on disk need `folder` and either `seal` or `seal_label`")
        if self.store == "pkcs11" and (self.seal or self.seal_label):
            raise ValueError("keys on a token need no `seal`: they never leave it")
        if (self.store == "pkcs11" or self.seal_label) and not self.has_token:
            raise ValueError("keys on a token, and a sealing key there, need `module`, `token` and `pin`")
        if self.former_seals and self.store != "disk":
            raise ValueError("`former_seals` are for keys on disk")
        return self


class UpstreamRoot(Settings):
    """A root that is kept elsewhere: its certificate, and its key in a PEM file or on a PKCS#11 token.

    `bundle` holds every root peers are to trust, that one among them; all files are read again at each use.
    """

    certificate: Path
    bundle: Path | None = None
    key: Path | None = None
    passphrase: SecretReference | None = None
    module: Path | None = None
    token: str | None = None
    pin: SecretReference | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        on_token = [self.module, self.token, self.pin, self.label]
        if (self.key is not None) == any(on_token) or (any(on_token) and not all(on_token)):
            raise ValueError(
                "expected either `key` (a file), or `module`, `token`, `pin` and `label` (a PKCS#11 token)"
            )
        if self.passphrase is not None and self.key is None:
            raise ValueError("`passphrase` is for a `key` in a file")
        return self

    def upstream(self) -> Upstream:
        """For the authority."""
        return Upstream(certificate=self.certificate, bundle=self.bundle, key=self._root_key())

    def _root_key(self) -> RootKey:
        if self.module is not None and self.token is not None and self.pin is not None and self.label is not None:
            return TokenRootKey(module=self.module, token=self.token, pin=self.pin, label=self.label)
        assert self.key is not None, "the validator saw to it"
        return FileKey(path=self.key, passphrase=self.passphrase)


class Lives(Settings):
    """How long things live; what is longer than a sixth of its signer's life is refused."""

    ca: Duration = timedelta(days=30)
    x509: Duration = timedelta(hours=1)
    jwt: Duration = timedelta(minutes=5)
    wit: Duration = timedelta(minutes=5)
    node: Duration = timedelta(hours=1)
    bundle_refresh: Duration = timedelta(minutes=5)
    propagation: Duration = timedelta(seconds=30)
    """How long peers are told of a new authority before it signs, when nothing else makes it wait longer."""


class NodeMethods(Settings):
    """How nodes may prove themselves besides join tokens; a method that is left out is refused."""

    k8s_psat: PsatVerifierSettings | None = None
    oidc: OidcVerifierSettings | None = None
    tpm: TpmVerifierSettings | None = None
    x509pop: X509PopVerifierSettings | None = None


class Limits(Settings):
    """How much of this machine strangers may use; the rest of the descriptors is left for everything else."""

    connections: Annotated[int, Field(ge=2)] = MOST
    """Of `listen`, and as many of `public`; one address gets half of each at most."""


class RevocationSettings(Settings):
    """How others hear of what was taken back."""

    pause: Duration = PAUSE
    """An authority signs at most one list in it, however many instances end."""
    let_expire: Duration = timedelta(minutes=1)
    """A leaf of an ended instance that expires within it is not listed; one revoked by an operator always is."""


class OwnPart(Settings):
    """How one of Sojourn's own processes is recognised; no rule of a file can give such an identity."""

    name: Literal["broker"]
    nodes: ConditionField
    when: ConditionField


class RuleOwner(Settings):
    """A team that writes rules of its own: where, and what they may say at most."""

    name: Annotated[str, parsed_by(parse_name)]
    rules: Annotated[tuple[Path, ...], Field(min_length=1)]
    paths: Annotated[tuple[Annotated[OwnerPath, parsed_by(OwnerPath.parse)], ...], Field(min_length=1)]
    nodes: ConditionField | None = None
    when: ConditionField | None = None
    dns_names: tuple[str, ...] = ()
    federates_with: tuple[str, ...] = ()

    def owner(self) -> Owner:
        """What its rules are held to."""
        return Owner(
            name=self.name,
            paths=self.paths,
            nodes=None if self.nodes == Condition.all_of([ANY_NODE]) else self.nodes,
            when=self.when,
            dns_names=self.dns_names,
            federates_with=self.federates_with,
        )


class PublicWeb(Listen):
    """An address with the certificate of a public CA; both files are read again when they change."""

    certificate: Path
    key: Path


class ServerSettings(Settings):
    """A whole attestor server."""

    trust_domain: Annotated[TrustDomain, parsed_by(TrustDomain.parse)]
    name: str | None = None
    """Which of the servers over one PostgreSQL this is; its keys hang on it, so it stays the same."""
    listen: Listen = Listen(port=8081)
    admin_socket: Path
    admin_uids: tuple[int, ...] = ()
    """Who may use the admin socket besides this process's own uid."""
    database: Annotated[str, parsed_by(checked)]
    keys: Keys = Keys()
    upstream: UpstreamRoot | None = None
    lives: Lives = Lives()
    limits: Limits = Limits()
    revocation: RevocationSettings = RevocationSettings()
    rules: tuple[Path, ...] = ()
    rule_owners: tuple[RuleOwner, ...] = ()
    strict_rules: bool = False
    hold_rules_over: Annotated[int, Field(ge=0)] = 20
    """A changed rule file that would take an identity from more live instances than that waits for an operator."""
    allow_rules_without_nodes: bool = False
    parts: tuple[OwnPart, ...] = ()
    clusters: tuple[ClusterSettings, ...] = ()
    """Kubernetes clusters that are asked about tokens, pods and nodes."""
    issuers: tuple[IssuerSettings, ...] = ()
    """CI systems whose jobs' tokens are taken."""
    node_methods: NodeMethods = NodeMethods()
    direct: bool = False
    """Whether pods of `clusters` and jobs of `issuers` may attest without a node agent, at `public`."""
    trust_node_agents: bool = False
    """Whether a node that proved no machine of `clusters` is believed what it says of pods."""
    beat: Duration = timedelta(seconds=1)
    observe_grace: Duration = timedelta(seconds=15)
    observe_limit: Duration = timedelta(seconds=60)
    confirm_grace: Duration = timedelta(seconds=60)
    """For how long the identity of a task is renewed after the broker last said that the task lives."""
    health: Listen | None = None
    public: Listen | None = None
    """Where the bundle is published over TLS with the server's own SVID (`https_spiffe`)."""
    public_web: PublicWeb | None = None
    """Where it is published as any web server would (`https_web`)."""
    jwt_issuer: str = ""
    """The `iss` of JWT-SVIDs: an address at which others find the discovery document of `public_web`."""
    federation: Annotated[tuple[FederatedDomain, ...], Field(max_length=MOST_DOMAINS)] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.beat * 2 < self.observe_grace < self.observe_limit:
            raise ValueError("expected twice `beat` < `observe_grace` < `observe_limit`")
        if self.name is not None and self.database.startswith("sqlite:"):
            raise ValueError("`name` is for one of several servers over a PostgreSQL: a store on SQLite has one server")
        names = [one.name for one in self.rule_owners]
        if len(set(names)) != len(names):
            raise ValueError("two of `rule_owners` have the same name")
        self._check_platforms()
        self._check_federation()
        try:
            self.authority()
        except Malformed as error:
            raise ValueError(str(error)) from None
        if self.lives.node * SHARE > self.lives.ca:
            raise ValueError("`lives.node` is too long: expected at most a sixth of `lives.ca`")
        return self

    @property
    def server_name(self) -> str:
        """What this server is called in the store: `name`, else the host's name; alone over SQLite always the same."""
        return MAIN_SERVER if self.database.startswith("sqlite:") else self.name or socket.gethostname().lower()

    @property
    def listeners(self) -> int:
        """How many there are that strangers reach."""
        return 1 + sum(one is not None for one in (self.public, self.public_web))

    def _check_platforms(self) -> None:
        for name, named in (
            ("clusters", [one.name for one in self.clusters]),
            ("issuers", [one.name for one in self.issuers]),
        ):
            if len(set(named)) != len(named):
                raise ValueError(f"two of `{name}` have one name")
        methods = self.node_methods
        if methods.k8s_psat is not None and not any(one.node_agents for one in self.clusters):
            raise ValueError("`node_methods.k8s_psat` needs one of `clusters` to name `node_agents`")
        if methods.oidc is not None and not set(methods.oidc.issuers) <= {one.name for one in self.issuers}:
            raise ValueError("`node_methods.oidc.issuers` names one that is not among `issuers`")
        if self.direct and (self.public is None or not (self.clusters or self.issuers)):
            raise ValueError("`direct` needs `public`, and one of `clusters` or `issuers`")

    def _check_federation(self) -> None:
        named = [one.trust_domain for one in self.federation]
        if len(set(named)) != len(named):
            raise ValueError("`federation` names a trust domain twice")
        if self.trust_domain in named:
            raise ValueError("`federation` names our own trust domain: expected foreign ones")
        for one in self.federation:
            if one.spiffe_id is not None and one.bundle is None:
                known = {self.trust_domain, *named}
                if one.spiffe_id.trust_domain not in known:
                    raise ValueError(
                        f"the endpoint of `{one.trust_domain}` needs `bundle`: nothing else names the bundle of"
                        f" `{one.spiffe_id.trust_domain}`"
                    )

    def authority(self) -> AuthoritySettings:
        """What the authority is told. Raises Malformed."""
        return AuthoritySettings(
            trust_domain=self.trust_domain,
            server=self.server_name,
            ca_ttl=self.lives.ca,
            x509_ttl=self.lives.x509,
            jwt_ttl=self.lives.jwt,
            wit_ttl=self.lives.wit,
            refresh_hint=self.lives.bundle_refresh,
            propagation=self.lives.propagation,
            patience=max(self.lives.propagation, self.lives.bundle_refresh),
            jwt_issuer=self.jwt_issuer,
        )

    def terms(self) -> Terms:
        """What rules may say."""
        longest = self.lives.ca / SHARE
        return Terms(
            trust_domain=self.trust_domain,
            longest_x509=longest,
            longest_jwt=longest,
            without_nodes=self.allow_rules_without_nodes,
            strict=self.strict_rules,
        )

    def own_rules(self) -> list[Rule]:
        """The rules behind `parts`."""
        return [
            Rule(
                name=f"sojourn-{part.name}",
                source="settings: parts",
                nodes=None if part.nodes == Condition.all_of([ANY_NODE]) else part.nodes,
                when=part.when,
                template=Template.parse(f"/sojourn/{part.name}", self.trust_domain, may_be_reserved=True),
                own=True,
            )
            for part in self.parts
        ]
