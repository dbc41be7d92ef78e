"""What an operator says about hosts with OpenSSH's sshd."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from broker.engines.ssh.certificate import LONGEST, Allowed
from broker.model.role import Role
from ca.errors import Malformed
from ca.runtime.settings import Settings as Base
from ca.runtime.settings import parsed_by

_PRINCIPAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]{0,63}")
_HOST_KEY = re.compile(r"(?:ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa) [A-Za-z0-9+/]{40,2000}={0,2}")

Power = Literal["pty", "port-forwarding", "agent-forwarding", "x11-forwarding", "user-rc"]

_EXTENSIONS = {
    "pty": "permit-pty",
    "port-forwarding": "permit-port-forwarding",
    "agent-forwarding": "permit-agent-forwarding",
    "x11-forwarding": "permit-X11-forwarding",
    "user-rc": "permit-user-rc",
}


def check_principal(text: str) -> str:
    """The name of a principal: of a user, or as `AuthorizedPrincipalsFile` lists it. Raises Malformed."""
    if not _PRINCIPAL.fullmatch(text):
        raise Malformed(f"`{ascii(text[:60])[1:-1]}` is no principal: expected letters, digits, `.`, `_`, `@` and `-`")
    return text


def check_source(text: str) -> str:
    """An address or a network in CIDR form. Raises Malformed."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise Malformed(f"`{ascii(text[:60])[1:-1]}` is no address or network, as `10.1.2.0/24`") from error


def check_command(text: str) -> str:
    """One line for the user's shell. Raises Malformed."""
    if not text.strip() or len(text) > 1000 or not text.isprintable():
        raise Malformed("a forced command is one line of 1 to 1000 printable characters")
    return text


def check_host_key(text: str) -> str:
    """A host's public key, as `ssh-keyscan` prints it behind the host. Raises Malformed."""
    if not _HOST_KEY.fullmatch(text):
        raise Malformed("a host key is written as `ssh-ed25519 AAAA…`, without a comment")
    return text


def check_list(text: str) -> Path:
    """Where a key revocation list is kept. Raises Malformed."""
    path = Path(text)
    if not path.is_absolute() or not path.name or "\0" in text:
        raise Malformed("the place of a key revocation list is an absolute path")
    return path


class Settings(Base):
    """One target of kind `ssh`: hosts that trust this target's CA for their users.

    `host` and `port` are told to agents, `host_keys` with them. `revocations` are the files the hosts' `RevokedKeys`
    name, written by us: without one a certificate can't be taken back, and ends at its expiry.
    """

    kind: Literal["ssh"] = "ssh"
    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")
    port: int = Field(default=22, gt=0, lt=65536)
    host_keys: tuple[Annotated[str, parsed_by(check_host_key)], ...] = ()
    revocations: tuple[Annotated[Path, parsed_by(check_list)], ...] = ()


class RoleSettings(Base):
    """What a role of such a target says; nothing is permitted beyond running a command that is not named here."""

    principals: tuple[Annotated[str, parsed_by(check_principal)], ...] = Field(min_length=1, max_length=50)
    force_command: Annotated[str, parsed_by(check_command)] | None = None
    source_addresses: tuple[Annotated[str, parsed_by(check_source)], ...] = ()
    permit: tuple[Power, ...] = ()

    def allowed(self) -> Allowed:
        """As a certificate says it."""
        options = {}
        if self.force_command is not None:
            options["force-command"] = self.force_command
        if self.source_addresses:
            options["source-address"] = ",".join(self.source_addresses)
        extensions = [_EXTENSIONS[power] for power in self.permit]
        return Allowed(principals=self.principals, options=options, extensions=extensions)


def role_settings(role: Role) -> RoleSettings:
    """The engine's part of `role`. Raises Malformed."""
    value: dict[str, Any] = {
        key: tuple(item) if isinstance(item, list) else item for key, item in role.settings.items()
    }
    if not role.ttl or role.ttl > LONGEST:
        minutes = int(LONGEST.total_seconds() // 60)
        raise Malformed(f"the role `{role.full_name}` needs a `ttl` of {minutes}m at most: sessions can't be cut")
    try:
        return RoleSettings.model_validate(value)
    except ValueError as error:
        raise Malformed(
            f"the role `{role.full_name}` needs `principals`,"
            " and may have `force_command`, `source_addresses` and `permit`"
        ) from error
