"""What the operator of a node agent may say."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from attestor.methods.node.k8s_psat import ProverSettings as PsatProverSettings
from attestor.methods.node.oidc import ProverSettings as OidcProverSettings
from attestor.methods.node.tpm import ProverSettings as TpmProverSettings
from attestor.methods.node.x509pop import ProverSettings as X509PopProverSettings
from attestor.methods.workload.k8s import PATIENCE
from attestor.methods.workload.kubelet import KubeletSettings
from attestor.methods.workload.unix import HASH_LIMIT
from attestor.node_agent.sds import Naming
from attestor.node_agent.spiffe_broker_api import KINDS
from attestor.node_agent.workload_api import Profiles
from attestor.wire.spiffe_broker import Reference
from ca.runtime.settings import Duration, SecretReference, Settings, parsed_by
from ca.spiffe import endpoint
from ca.spiffe.endpoint import Endpoint, UnixEndpoint
from ca.spiffe.id import SpiffeId, TrustDomain

Port = Annotated[int, Field(ge=1, le=65535)]
KeyHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Attest = Annotated[
    PsatProverSettings | OidcProverSettings | TpmProverSettings | X509PopProverSettings, Field(discriminator="method")
]
"""How the node proves itself, by the name of the method."""
SecretName = Annotated[str, Field(min_length=1, max_length=256)]
Uid = Annotated[int, Field(ge=0, lt=2**32 - 1)]


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise PydanticCustomError("sojourn", "expected an absolute path")
    return path


class ServerAddress(Settings):
    """Where the attestor server listens for node agents."""

    host: str = "127.0.0.1"
    port: Port = 8081


class UnixSourceSettings(Settings):
    """How far a process is looked at."""

    path: bool = True
    """Whether to say `unix:path` and `unix:sha256`."""
    hash_limit: Annotated[int, Field(ge=0)] = HASH_LIMIT
    """Executables of more bytes get no `unix:sha256`."""
    shared_uids: tuple[Uid, ...] = ()
    """Users whose processes are no better kept apart than those of the node agent's own user: `shared-uid`."""


class WorkloadApiSettings(Settings):
    """What the Workload API offers to whom."""

    x509: bool = True
    jwt: bool = True
    wit: bool = True
    """Each of the standard's profiles; one that is off is answered with Unimplemented."""
    bundles_without_identity: bool = False
    """Whether a process that no rule matches may follow the bundles of the own trust domain."""
    foreign_claims: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = ()
    """Claims, beside the registered ones, that are told on of validated tokens of other trust domains."""

    def profiles(self) -> Profiles:
        """The same for the part that answers."""
        return Profiles(
            x509=self.x509,
            jwt=self.jwt,
            wit=self.wit,
            bundles_for_anybody=self.bundles_without_identity,
            foreign_claims=frozenset(self.foreign_claims),
        )


class KubernetesSourceSettings(Settings):
    """How the pod of a process is found."""

    kubelet: KubeletSettings = KubeletSettings()
    patience: Duration = PATIENCE
    """For how long a container may run before the kubelet knows of it; its first call waits so long."""
    cgroup_parents: tuple[str, ...] = ()
    """Names that may stand above the cgroups of pods, where the kubelet was given a `--cgroup-root`."""


class Limits(Settings):
    """How much of this machine the Workload API may use; the rest of the descriptors is left for everything else."""

    connections: Annotated[int, Field(ge=1)] = 4096
    processes: Annotated[int, Field(ge=1)] = 4096


class EnvoySettings(Settings):
    """Under which names Envoy asks for its secrets, and how it is to judge peers."""

    default_svid_name: SecretName = "default"
    """The certificate of the first identity."""
    default_bundle_name: SecretName = "ROOTCA"
    """The authorities of the own trust domain."""
    default_all_bundles_name: SecretName = "ALL"
    """Those of every trust domain an identity of the caller federates with, too."""
    spiffe_validator: bool = True
    """Whether Envoy judges peers by its SPIFFE validator, each by its own domain; else by authorities alone."""
    revocation_lists: bool = False
    """Whether revocation lists go with the authorities of the own domain: Envoy then wants one of each of them."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = {self.default_svid_name, self.default_bundle_name, self.default_all_bundles_name}
        if len(names) < 3 or any(name.startswith("spiffe://") for name in names):
            raise ValueError("the three names must differ from each other and from SPIFFE IDs")
        return self

    def naming(self) -> Naming:
        """The same for the part that answers."""
        return Naming(
            certificate=self.default_svid_name,
            own_bundle=self.default_bundle_name,
            all_bundles=self.default_all_bundles_name,
            spiffe_validator=self.spiffe_validator,
            revocation_lists=self.revocation_lists,
        )


class AllowedBroker(Settings):
    """One caller of the SPIFFE Broker API, and the kinds of references it may use."""

    spiffe_id: Annotated[SpiffeId, parsed_by(SpiffeId.parse)]
    references: Annotated[tuple[Literal["pid", "kubernetes", "task"], ...], Field(min_length=1)]


class SpiffeBrokerApiSettings(Settings):
    """Where the SPIFFE Broker API listens, and who may use it."""

    endpoint: Annotated[Endpoint, parsed_by(endpoint.parse_broker)]
    """As in SPIFFE_BROKER_SOCKET: `unix:///path` or `tcp://host:port`."""
    group: Annotated[int, Field(ge=0, lt=2**32 - 1)] | None = None
    """Whose members may connect to the socket; without one only the node agent's own user and root."""
    connections: Annotated[int, Field(ge=2)] = 64
    """Held at most, of the descriptors that are not the Workload API's."""
    allow: Annotated[tuple[AllowedBroker, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_makes_sense(self) -> Self:
        if len({one.spiffe_id for one in self.allow}) < len(self.allow):
            raise ValueError("`allow` names a SPIFFE ID twice")
        if self.group is not None and not isinstance(self.endpoint, UnixEndpoint):
            raise ValueError("`group` is about a socket: an address has none")
        if not self._is_local() and any("pid" in one.references for one in self.allow):
            raise ValueError("a process number means nothing on another machine: `pid` needs a socket or loopback")
        return self

    def _is_local(self) -> bool:
        """Whether only this machine gets there."""
        if isinstance(self.endpoint, UnixEndpoint):
            return True
        try:
            return ip_address(self.endpoint.host).is_loopback
        except ValueError:  # where a name leads to is not ours to say
            return False

    def allowed(self) -> Mapping[SpiffeId, frozenset[type[Reference]]]:
        """The same for the part that answers."""
        return {one.spiffe_id: frozenset(KINDS[kind] for kind in one.references) for one in self.allow}


class HealthListen(Settings):
    """Where health and metrics are answered; port 0 lets the system choose."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0


class NodeAgentSettings(Settings):
    """A whole node agent."""

    trust_domain: Annotated[TrustDomain, parsed_by(TrustDomain.parse)]
    server: ServerAddress = ServerAddress()
    servers: tuple[ServerAddress, ...] = ()
    """Instead of `server`: several over one store. One that does not answer is left for the next."""
    state: Path
    """The folder of its identity and of the journal of instances; survives restarts."""
    workload_socket: Annotated[Path, AfterValidator(_absolute)]
    """A Unix socket and nothing else: on a network nobody would say who calls (SPIFFE_Workload_Endpoint.md 3)."""
    admin_socket: Path
    admin_uids: tuple[Uid, ...] = ()
    """Who may use the admin socket besides this process's own uid."""
    join_token: SecretReference | None = None
    """Needed once; afterwards the node's own SVID is enough as long as it is valid."""
    attest: Attest | None = None
    """Another way to be admitted than a join token, which can be repeated."""
    trust_bundle: Path | None = None
    """By what the server is known before this node was ever admitted: PEM certificates, or a SPIFFE bundle."""
    root_key_hash: KeyHash | None = None
    """The same as one SHA-256 of the public key of the server's root."""
    unix: UnixSourceSettings = UnixSourceSettings()
    workload_api: WorkloadApiSettings = WorkloadApiSettings()
    systemd: bool = False
    """Whether to say which unit of systemd a process belongs to."""
    kubernetes: KubernetesSourceSettings | None = None
    """Whether to say which pod and container a process runs in, and whom to ask."""
    limits: Limits = Limits()
    envoy: EnvoySettings = EnvoySettings()
    spiffe_broker_api: SpiffeBrokerApiSettings | None = None
    """Absent: not offered."""
    health: HealthListen | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        known = self.trust_bundle is not None or self.root_key_hash is not None
        if self.attest is not None and not known:
            raise ValueError(
                "`attest` needs `trust_bundle` or `root_key_hash`: the proof is shown to no unknown server"
            )
        if self.attest is not None and self.join_token is not None:
            raise ValueError("`attest` and `join_token` are two ways to join: expected one")
        if self.servers and "server" in self.model_fields_set:
            raise ValueError("`server` and `servers` both say where the server is: expected one")
        return self

    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Of the servers, in the order in which they are tried."""
        return tuple((one.host, one.port) for one in self.servers or (self.server,))
