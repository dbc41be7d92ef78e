"""What the operator of a broker may say; `config/broker.yaml` is the commented reference.

Targets stand in the file itself or, one file each, in `targets_folder` (where `sojourn target add` puts them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union, cast

from pydantic import Discriminator, Field, Tag, ValidationError, create_model, model_validator

from broker.engines import ENGINES, INTERNAL, svid
from broker.engines import load as load_kind
from broker.model.bounds import Bounds
from broker.model.quota import Quotas
from broker.model.retention import LEAST, Retention
from broker.model.role import Role
from broker.model.scope import Sensitivity
from ca.errors import Malformed
from ca.keys.settings import KeySettings
from ca.runtime.crowd import MOST
from ca.runtime.database import checked
from ca.runtime.settings import Duration, Settings, load, parsed_by
from ca.spiffe.id import SpiffeId

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


def check_name(name: str) -> str:
    """A target's or role's name. Raises Malformed."""
    if not _NAME.fullmatch(name):
        raise Malformed(f"`{name[:60]}` is not a name: expected lower-case letters, digits and `-`")
    return name


Name = Annotated[str, parsed_by(check_name)]


def check_point(text: str) -> str:
    """An enforcement point: a SPIFFE ID, or `operator:<name>`. Raises Malformed."""
    kind, colon, name = text.partition(":")
    if kind == "operator" and colon and name:
        return text
    return str(SpiffeId.parse(text))


class ListenSettings(Settings):
    """A TCP address; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = Field(ge=0, lt=65536)


class AttestorAddress(Settings):
    """Where an attestor server answers gRPC."""

    host: str
    port: int = Field(gt=0, lt=65536)


class AttestorSettings(AttestorAddress):
    """The attestor server: for process ends. Without it tasks live by heartbeat and deadline."""

    others: tuple[AttestorAddress, ...] = ()
    """Further servers over the same store."""


class TaskSettings(Settings):
    """What bounds every task."""

    longest: Duration = timedelta(hours=12)
    longest_heartbeat: Duration = timedelta(minutes=10)
    deepest_tree: int = Field(default=8, ge=1, le=64)
    most_live: int = Field(default=1000, ge=1)
    observe_grace: Duration = timedelta(seconds=60)


class QuotaSettings(Settings):
    """How many secrets may be out at once, and how fast they may come; None is no bound."""

    leases_per_identity: Annotated[int, Field(ge=1, le=1_000_000)] | None = 10_000
    leases_per_task: Annotated[int, Field(ge=1, le=1_000_000)] | None = 10_000
    leases_per_target: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    grants_per_minute: Annotated[int, Field(ge=1)] | None = None

    def to_quotas(self) -> Quotas:
        """The value."""
        return Quotas(**self.model_dump())


class RetentionSettings(Settings):
    """For how long what is over is remembered."""

    events: Annotated[Duration, Field(ge=LEAST.events)] = Retention().events
    tasks: Annotated[Duration, Field(ge=LEAST.tasks)] = Retention().tasks
    receipts: Annotated[Duration, Field(ge=LEAST.receipts)] = Retention().receipts
    every: Duration = timedelta(minutes=1)

    def to_retention(self) -> Retention:
        """The value."""
        return Retention(events=self.events, tasks=self.tasks, receipts=self.receipts)


class RoleSettings(Settings):
    """One role of a target; `engine` is what its engine wants to know, in the model of that kind."""

    description: str = ""
    sensitivity: Annotated[Sensitivity, parsed_by(Sensitivity.parse)]
    ttl: Duration = timedelta(minutes=10)
    longest: Duration = timedelta(hours=8)
    ack_within: Duration = timedelta(seconds=30)
    engine: Any


class CallSettings(Settings):
    """How many calls to a target go at once, and how fast the backlog of an outage is drained; read at the start."""

    grants: int = Field(default=8, ge=1, le=1000)
    endings: int = Field(default=4, ge=1, le=1000)
    endings_per_second: float = Field(default=100.0, gt=0)

    def to_bounds(self) -> Bounds:
        """The value."""
        return Bounds(grants=self.grants, endings=self.endings, rate=self.endings_per_second)


class TargetSettings(Settings):
    """One system secrets are made in; which models `engine` and the roles' `engine` are follows from its kind."""

    engine: Any
    rotate_every: Annotated[Duration, Field(ge=timedelta(minutes=1))] | None = None
    calls: CallSettings = CallSettings()
    roles: Mapping[Name, RoleSettings] = Field(default_factory=dict)

    @classmethod
    def model_for(cls, tree: Any) -> type[Self]:
        """The model of the kind that `engine.kind` names. Raises Malformed."""
        kind = _kind(tree)
        if kind is None:
            raise Malformed(_EXPECTED)
        return cast("type[Self]", TARGETS[kind])

    def to_roles(self, target: str) -> Mapping[str, Role]:
        """`target/role` → the role as the rest of the broker knows it."""
        roles = (
            Role(
                target=target,
                name=name,
                engine=self.engine.kind,
                sensitivity=said.sensitivity,
                ttl=said.ttl,
                longest=said.longest,
                ack_within=said.ack_within,
                description=said.description,
                settings=said.engine.model_dump(exclude_none=True, mode="json"),
            )
            for name, said in self.roles.items()
        )
        return {role.full_name: role for role in roles}


def _default(model: type[Settings]) -> Any:
    """What a role says to its engine when it says nothing; `...` where it must say something."""
    try:
        return model()
    except ValidationError:
        return ...


def _of(kind: str) -> type[TargetSettings]:
    module = load_kind(kind)
    role: Any = create_model(
        f"{kind}_role", __base__=RoleSettings, engine=(module.RoleSettings, _default(module.RoleSettings))
    )
    roles: Any = (Mapping[Name, role], Field(default_factory=dict))
    return create_model(f"{kind}_target", __base__=TargetSettings, engine=(module.Settings, ...), roles=roles)


TARGETS: Mapping[str, type[TargetSettings]] = {kind: _of(kind) for kind in sorted(ENGINES.keys() - INTERNAL)}
"""Kind → what the settings of such a target are."""


def _kind(value: Any) -> str | None:
    """Which of `TARGETS` a target is, before it was read."""
    engine = value.get("engine") if isinstance(value, Mapping) else getattr(value, "engine", None)
    kind = engine.get("kind", "postgres") if isinstance(engine, Mapping) else getattr(engine, "kind", None)
    return kind if isinstance(kind, str) and kind in TARGETS else None


_EXPECTED = f"expected `engine.kind` to be one of `{'`, `'.join(TARGETS)}`"


if TYPE_CHECKING:
    Target = TargetSettings
elif len(TARGETS) == 1:
    (Target,) = TARGETS.values()
else:
    Target = Annotated[
        Union[tuple(Annotated[model, Tag(kind)] for kind, model in TARGETS.items())],  # noqa: UP007 - made at run time
        Discriminator(_kind, custom_error_type="target_kind", custom_error_message=_EXPECTED.replace("{", "{{")),
    ]


class ConnectionLimits(Settings):
    """How much of this machine callers may use; the rest of the descriptors is left for everything else."""

    connections: Annotated[int, Field(ge=2)] = MOST
    """Of `listen`; one address gets half of them at most."""


class Keys(KeySettings):
    """Where the broker's own keys rest (SSH and client-certificate CAs), and what secret values are sealed with.

    `database` is the broker's own store: several brokers over one share keys. Without `seal` and `seal_label` no
    value rests: no static secret, no refresh token, no rotated password.
    """

    store: Literal["memory", "disk", "pkcs11", "database"] = "memory"  # type: ignore[assignment]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        sealed = bool(self.seal or self.seal_label)
        if self.seal and self.seal_label:
            raise ValueError("expected either `seal` or `seal_label`")
        if self.store == "disk" and not (self.folder and sealed):
            raise ValueError("keys on disk need `folder` and either `seal` or `seal_label`")
        if self.store == "database" and not sealed:
            raise ValueError("keys in the database need either `seal` or `seal_label`")
        if (self.store == "pkcs11" or self.seal_label) and not self.has_token:
            raise ValueError("keys on a token, and a sealing key there, need `module`, `token` and `pin`")
        if self.former_seals and not sealed:
            raise ValueError("`former_seals` need the `seal` that replaced them")
        return self


class BrokerSettings(Settings):
    """The broker's process."""

    listen: ListenSettings = ListenSettings(port=8443)
    admin_socket: Path
    admin_uids: tuple[int, ...] = ()
    health: ListenSettings | None = None
    workload_api: str = "unix:///run/sojourn/workload.sock"
    identity: Annotated[SpiffeId, parsed_by(SpiffeId.parse)] | None = None
    attestor: AttestorSettings | None = None
    database: Annotated[str, parsed_by(checked)]
    keys: Keys = Keys()
    policies: tuple[Path, ...] = ()
    tasks: TaskSettings = TaskSettings()
    points: tuple[Annotated[str, parsed_by(check_point)], ...] = ()
    quotas: QuotaSettings = QuotaSettings()
    retention: RetentionSettings = RetentionSettings()
    limits: ConnectionLimits = ConnectionLimits()
    targets: Mapping[Name, Target] = Field(default_factory=dict)
    targets_folder: Path | None = None
    sweep_every: Duration = timedelta(seconds=60)
    reap_every: Duration = timedelta(seconds=1)
    dead_after: Annotated[Duration, Field(ge=timedelta(seconds=3))] = timedelta(seconds=10)
    """For how long another broker over the same store must be seen to stand still before its work is taken over."""

    def all_targets(self) -> Mapping[str, TargetSettings]:
        """The targets of the file and of the folder.

        Raises:
            BadSettings: a file of the folder can't be read.
            Malformed: a target is named twice.
        """
        targets = dict(self.targets)
        names = [*targets, *(path.stem for path in self._files())]
        if svid.TARGET in names:
            raise Malformed(
                f"no target may be called `{svid.TARGET}`: the identities of tasks are made under that name"
            )
        for path in self._files():
            name = check_name(path.stem)
            if name in targets:
                raise Malformed(f"the target `{name}` stands in the settings and in `{path}`")
            targets[name] = load(path, TargetSettings)
        return targets

    def _files(self) -> list[Path]:
        return [] if self.targets_folder is None else sorted(self.targets_folder.glob("*.yaml"))
