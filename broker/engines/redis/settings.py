"""What an operator says about a Redis or Valkey target."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from broker.engines.encryption import Encryption, chosen
from broker.engines.redis.rules import RoleSettings, role_settings
from ca.runtime.settings import SecretReference
from ca.runtime.settings import Settings as Base

__all__ = ["Address", "RoleSettings", "Settings", "role_settings"]


class Address(Base):
    """One endpoint."""

    host: str
    port: int = Field(default=6379, gt=0, lt=65536)


class Settings(Base):
    """One target of kind `redis`.

    Users are each node's own: `nodes` are all further ones an agent could reach, replicas and cluster members alike;
    everything is done and verified on each. `persist: aclfile` has each node save its users after every change, so
    that they survive its restart. `tls` left out is `verify`, and `off` only where every endpoint is on loopback.
    """

    kind: Literal["redis"]
    host: str
    port: int = Field(default=6379, gt=0, lt=65536)
    user: str = "default"
    password: SecretReference
    database: int = Field(default=0, ge=0, le=65535)
    nodes: tuple[Address, ...] = ()
    tls: Encryption | None = None
    tls_ca: Path | None = None
    persist: Literal["none", "aclfile"] = "none"
    connections: int = Field(default=8, ge=1, le=100)

    def addresses(self) -> tuple[Address, ...]:
        """Every node, the one agents are told of first."""
        return (Address(host=self.host, port=self.port), *self.nodes)

    @property
    def encryption(self) -> Encryption:
        """`tls` as it was said, or what is safe without a word."""
        return chosen(self.tls, (address.host for address in self.addresses()))
