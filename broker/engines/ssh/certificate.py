"""OpenSSH user certificates, signed by a CA of one target's own (`PROTOCOL.certkeys` of OpenSSH).

The bytes are put together here and not by a library: a key store signs and never shows its key. The CA's key is one of
the broker's own, made at first use for this target and this purpose (traps 25). The agent's key is made here, handed
over once and forgotten. Everything a holder may do is in the certificate: nothing is permitted that was not said.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from broker.engines.ssh import wire
from ca.keys.protocol import KeyStore, Purpose, SigningKey, load_or_create
from ca.runtime.secret import Secret

LONGEST = timedelta(minutes=15)
"""No certificate lives longer: what was opened with it can't be cut, and without a list it can't be taken back."""

BACKDATE = timedelta(seconds=60)
"""How far before its making a certificate begins: a host's clock may be a little behind."""

_KIND = b"ssh-ed25519-cert-v01@openssh.com"
_USER = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a certificate lets its holder do."""

    principals: Sequence[str]
    options: Mapping[str, str]
    """Critical ones, by name: a server that does not know one refuses the certificate."""
    extensions: Sequence[str]
    """Powers beyond running a command, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A certificate as the line of a `…-cert.pub` file, and its private key as OpenSSH keeps it."""

    certificate: str
    private_key: Secret


class UserAuthority:
    """The CA of one target; its key is loaded, or made, when it is first needed."""

    def __init__(self, keys: KeyStore, target: str) -> None:
        self._keys, self._target = keys, target
        self._key: SigningKey | None = None

    @property
    def durable(self) -> bool:
        """Whether the key outlives this process."""
        return self._keys.durable

    async def line(self) -> str:
        """Its public key, for the file `TrustedUserCAKeys` names. Raises KeyUnusable, Unavailable."""
        blob = wire.public_key((await self._loaded()).public_key)
        return f"{wire.P256.decode()} {base64.b64encode(blob).decode()} sojourn-users-of-{self._target}"

    async def fingerprint(self) -> str:
        """What `ssh-keygen -l` says of it."""
        blob = wire.public_key((await self._loaded()).public_key)
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    async def issue(self, key_id: str, allowed: Allowed, now: datetime, until: datetime) -> Made:
        """A certificate that ends at `until` at the latest, and its key. Raises KeyUnusable, Unavailable."""
        key, private = await self._loaded(), Ed25519PrivateKey.generate()
        end = min(until, now + LONGEST)
        content = tbs(
            public=private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
            key_id=key_id,
            allowed=allowed,
            lifetime=(int(min(now - BACKDATE, end).timestamp()), int(end.timestamp())),
            authority=wire.public_key(key.public_key),
        )
        blob = content + wire.string(wire.signature(await key.sign(content)))
        secret = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        return Made(
            certificate=f"{_KIND.decode()} {base64.b64encode(blob).decode()} {key_id}", private_key=Secret(secret)
        )

    async def _loaded(self) -> SigningKey:
        if self._key is None:
            self._key = await load_or_create(self._keys, f"ssh-{self._target}-users", Purpose.SSH_CA)
        return self._key


def serial(key_id: str) -> int:
    """The serial of a certificate follows from its key id, so it is known before there is one; never 0."""
    return int.from_bytes(hashlib.sha256(b"sojourn ssh serial " + key_id.encode()).digest()[:8], "big") | 1


def tbs(*, public: bytes, key_id: str, allowed: Allowed, lifetime: tuple[int, int], authority: bytes) -> bytes:
    """What is signed: a user certificate over an Ed25519 key; `lifetime` in seconds since 1970, its end excluded.

    Options and extensions stand in the order of their names, each once, as readers demand.
    """
    options = b"".join(
        wire.string(name.encode()) + wire.string(wire.string(value.encode()))
        for name, value in sorted(allowed.options.items())
    )
    extensions = b"".join(wire.string(name.encode()) + wire.string(b"") for name in sorted(set(allowed.extensions)))
    return b"".join(
        (
            wire.string(_KIND),
            wire.string(secrets.token_bytes(32)),
            wire.string(public),
            wire.number(serial(key_id), 8),
            wire.number(_USER, 4),
            wire.string(key_id.encode()),
            wire.string(b"".join(wire.string(principal.encode()) for principal in allowed.principals)),
            wire.number(max(0, lifetime[0]), 8),
            wire.number(max(1, lifetime[1]), 8),
            wire.string(options),
            wire.string(extensions),
            wire.string(b""),
            wire.string(authority),
        )
    )
