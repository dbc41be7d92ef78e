"""The key revocation list of a target, which is also the record of what was signed (`PROTOCOL.krl` of OpenSSH).

A host reads the list at each login; the engine has no store of its own. So the list carries, in its comment, every
certificate that may still be alive: which name, how many were signed under it, how many of those are revoked, and until
when. What is told to hosts is made of that alone: the key ids of the revoked, under any CA. An entry is dropped only
long after the certificate ended by itself, since a host's clock may be behind ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from broker.engines.protocol import Claim
from broker.engines.ssh import wire
from broker.engines.ssh.certificate import LONGEST
from ca.errors import Conflict, Malformed, NotFound
from ca.runtime.clock import instant

MOST = 8
"""Certificates under one name: a secret that is asked for again so often was not lost on its way."""

BEHIND = timedelta(hours=1)
"""How far a host's clock may be behind: for so long an entry outlives its certificate."""

_MAGIC = b"SSHKRL\n\0"
_FORMAT = 1
_CERTIFICATES, _KEY_IDS = b"\x01", b"\x23"
_FIRST_LINE = "sojourn 1"
_CLAIM = re.compile(r"claim ([a-z0-9]{8}) ([A-Za-z0-9]{1,40})")
_ENTRY = re.compile(r"([a-z0-9_]{1,32}) ([1-8]) ([0-8]) ([0-9]{1,12})")


def key_id(name: str, generation: int) -> str:
    """What stands in a certificate and in hosts' logs: the lease's name, and which certificate under it."""
    return name if generation == 1 else f"{name}.{generation}"


@dataclass(frozen=True, slots=True)
class Entry:
    """Certificates under one name: how many, how many of them are revoked, and when the last one ends (seconds)."""

    made: int
    revoked: int
    until: int

    @property
    def is_open(self) -> bool:
        """Whether one of them is not revoked."""
        return self.revoked < self.made


@dataclass(slots=True)
class Ledger:
    """What one list says."""

    version: int = 0
    claim: Claim | None = None
    entries: dict[str, Entry] = field(default_factory=dict)

    def sign(self, name: str, until: datetime) -> str:
        """Note a first certificate; its key id. Raises Conflict: the name is taken, or was."""
        if name in self.entries:
            raise Conflict("a certificate was signed under that name already, or the name is revoked")
        self.entries[name] = Entry(1, 0, _seconds(until))
        return key_id(name, 1)

    def sign_again(self, name: str, until: datetime) -> str:
        """Revoke what was signed under a name and note another. Raises NotFound, Conflict."""
        entry = self.entries.get(name)
        if entry is None:
            raise NotFound("no certificate was signed under that name")
        if not entry.is_open or entry.made == MOST:
            raise Conflict("the certificate is revoked, or was asked for too often")
        self.entries[name] = Entry(entry.made + 1, entry.made, max(entry.until, _seconds(until)))
        return key_id(name, entry.made + 1)

    def revoke(self, name: str, now: datetime) -> None:
        """Nothing that was or will be signed under `name` opens anything; for a name nobody knows too."""
        entry = self.entries.get(name) or Entry(MOST, 0, 0)
        until = max(entry.until, _seconds(now + LONGEST))
        self.entries[name] = replace(entry, revoked=entry.made, until=until)

    def is_revoked(self, name: str) -> bool:
        """Whether hosts are told so."""
        entry = self.entries.get(name)
        return entry is not None and not entry.is_open

    def names(self, prefix: str, now: datetime) -> list[str]:
        """Under which names a certificate may still be alive."""
        alive = (name for name, entry in self.entries.items() if entry.is_open and instant(entry.until * 10**6) > now)
        return sorted(name for name in alive if name.startswith(prefix))

    def drop_old(self, now: datetime) -> None:
        """Forget what no host can believe any more."""
        before = _seconds(now - BEHIND)
        self.entries = {name: entry for name, entry in self.entries.items() if entry.until > before}

    def add(self, other: Ledger) -> None:
        """Take in what another copy says: what is revoked in one is revoked. Raises Conflict: whose it is differs."""
        if self.claim is not None and other.claim is not None and self.claim.installation != other.claim.installation:
            raise Conflict("the revocation lists of this target carry the claims of different installations")
        self.claim = self.claim or other.claim
        self.version = max(self.version, other.version)
        for name, theirs in other.entries.items():
            ours = self.entries.get(name, theirs)
            self.entries[name] = Entry(
                max(ours.made, theirs.made), max(ours.revoked, theirs.revoked), max(ours.until, theirs.until)
            )

    def encode(self, now: datetime) -> bytes:
        """The list as hosts read it."""
        revoked = b"".join(wire.string(one.encode()) for one in self._revoked())
        any_ca = wire.string(b"") + wire.string(b"")
        section = any_ca + _KEY_IDS + wire.string(revoked) if revoked else any_ca
        head = _MAGIC + wire.number(_FORMAT, 4) + wire.number(self.version, 8) + wire.number(_seconds(now), 8)
        head += wire.number(0, 8) + wire.string(b"") + wire.string(self._comment().encode())
        return head + (_CERTIFICATES + wire.string(section) if revoked else b"")

    @classmethod
    def decode(cls, content: bytes) -> Ledger:
        """What a list of ours says. Raises Malformed: it is no list, or not one of ours."""
        reader = wire.Reader(content)
        if reader.take(8) != _MAGIC or reader.number(4) != _FORMAT:
            raise Malformed("the file is no key revocation list of OpenSSH")
        ledger = cls(version=reader.number(8))
        reader.take(16)
        reader.string()
        lines = reader.string().decode(errors="replace").split("\n")
        if lines[0] != _FIRST_LINE:
            raise Malformed("the key revocation list is not one of ours: name a path that is used for nothing else")
        for line in lines[1:]:
            ledger._read(line)
        return ledger

    def _read(self, line: str) -> None:
        if found := _CLAIM.fullmatch(line):
            self.claim = Claim(installation=found[1], incarnation=found[2])
        elif found := _ENTRY.fullmatch(line):
            entry = Entry(int(found[2]), int(found[3]), int(found[4]))
            if entry.revoked > entry.made or found[1] in self.entries:
                raise Malformed("the key revocation list is damaged")
            self.entries[found[1]] = entry
        else:
            raise Malformed("the key revocation list is damaged, or a newer sojourn wrote it")

    def _comment(self) -> str:
        lines = [_FIRST_LINE]
        if self.claim is not None:
            lines.append(f"claim {self.claim.installation} {self.claim.incarnation}")
        lines += [f"{name} {one.made} {one.revoked} {one.until}" for name, one in sorted(self.entries.items())]
        return "\n".join(lines)

    def _revoked(self) -> Iterator[str]:
        for name, entry in sorted(self.entries.items()):
            yield from (key_id(name, generation) for generation in range(1, entry.revoked + 1))


def _seconds(moment: datetime) -> int:
    """Rounded up: nothing is forgotten early."""
    return -int(-moment.timestamp() // 1)
