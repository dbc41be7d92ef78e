"""One role proved: a probe is made, logs in as an agent would, is ended, and is refused afterwards."""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Sequence
from datetime import timedelta

import asyncpg

from broker.engines.encryption import context
from broker.engines.passwords import new_password
from broker.engines.postgres.certificate import MARKER
from broker.engines.postgres.guard import Connection
from broker.engines.postgres.principal import literal
from broker.engines.postgres.reach import FAILURES, Endpoint, knock
from broker.engines.postgres.scram import verifier
from broker.engines.postgres.settings import Settings
from broker.engines.protocol import Engine, Finding, Issued
from broker.errors import TargetDown
from broker.model.role import Role
from ca.errors import Problem
from ca.runtime.clock import Clock
from ca.runtime.secret import Secret

_GOOD = "created, logged in, cut off, refused, dropped"
_LIFE = timedelta(seconds=60)
_WRONG_PASSWORD, _NO_ENTRY = "28P01", "28000"
_HBA = f"hostssl all +{MARKER} all cert   and below it   host all +{MARKER} all reject"


class Probe:
    """One probe of one role."""

    def __init__(self, engine: Engine, endpoint: Endpoint, settings: Settings, role: Role, clock: Clock) -> None:
        self._engine, self._endpoint, self._role, self._clock = engine, endpoint, role, clock
        self._settings = settings
        self._found: list[Finding] = []

    async def run(self, prefix: str) -> Sequence[Finding]:
        """What was seen; nothing is left behind."""
        name = f"{prefix}probe{secrets.token_hex(7)}"
        handle = self._engine.plan(self._role, name)
        kind, outcome = str(handle.facts["secret_kind"]), _GOOD
        try:
            until = self._clock.now() + _LIFE
            issued = await self._engine.create(handle, self._role, until, until)
            session = await self._enter(issued)
            if "private_key" in issued.secret:
                await self._own_password(session, issued)
            await self._engine.end_access(handle)
            if not session.is_closed() and await _answers(session):
                outcome = "its session was not cut"
            session.terminate()
            if await self._still_admits(issued):
                outcome = "it could log in after it was ended"
        except (Problem, *FAILURES) as error:
            outcome = f"failed: {error if isinstance(error, Problem) else _said(error)}"
        finally:
            await self._engine.end_access(handle)
            await self._engine.clean_up(handle)
        well = outcome == _GOOD
        fix = "see the detail; nothing was left behind"
        if kind == "certificate":
            fix = f"install `sojourn target ca {self._role.target}` as ssl_ca_file; pg_hba.conf, above others: {_HBA}"
        self._say(f"role {self._role.full_name}", well=well, detail=f"{kind}: {outcome}", fix=fix)
        return self._found

    def _say(self, name: str, *, well: bool, detail: str, fix: str) -> None:
        self._found.append(Finding(name=name, well=well, detail=detail, fix=None if well else fix))

    async def _enter(self, issued: Issued) -> Connection:
        where, who = str(issued.fields["database"]), str(issued.fields["username"])
        if "private_key" in issued.secret:
            return await knock(self._endpoint, where, user=who, password=None, tls=self._showing(issued))
        return await knock(self._endpoint, where, user=who, password=issued.secret["password"])

    def _showing(self, issued: Issued) -> ssl.SSLContext:
        """The endpoint's TLS as an agent speaks it, with its certificate; the key never reaches a disk."""
        made = context(self._settings.encryption, self._settings.tls_ca)
        assert made is not None  # a plan refuses certificates without TLS
        descriptor = os.memfd_create("sojourn-probe", os.MFD_CLOEXEC)
        try:
            text = f"{issued.fields['certificate']}{issued.secret['private_key'].reveal()}"
            os.write(descriptor, text.encode())
            made.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return made

    async def _own_password(self, session: Connection, issued: Issued) -> None:
        """Its holder sets itself a password: no way may lead in by it, encrypted or not (traps 24)."""
        own = Secret(new_password())
        await session.execute(f"ALTER ROLE CURRENT_USER PASSWORD {literal(verifier(own.reveal(), 1))}")
        answers = [
            await self._refusal(issued, own, tls)
            for tls in (context(self._settings.encryption, self._settings.tls_ca), None)
        ]
        well = all(answer == _NO_ENTRY for answer in answers)
        detail = "pg_hba.conf asks it for a certificate and nothing else"
        if not well:
            detail = f"pg_hba.conf lets it try a password ({', '.join(answers)})"
        self._say(
            f"role {self._role.full_name} by certificate only", well=well, detail=detail, fix=f"pg_hba.conf: {_HBA}"
        )

    async def _refusal(self, issued: Issued, password: Secret, tls: ssl.SSLContext | None) -> str:
        where, who = str(issued.fields["database"]), str(issued.fields["username"])
        try:
            session = await knock(self._endpoint, where, user=who, password=password, tls=tls or False)
        except asyncpg.PostgresError as error:
            return str(getattr(error, "sqlstate", None) or "?")
        except FAILURES:
            return _NO_ENTRY  # it hung up during the handshake: no certificate was shown, or TLS is a must
        session.terminate()
        return "let in"

    async def _still_admits(self, issued: Issued) -> bool:
        try:
            session = await self._enter(issued)
        except asyncpg.PostgresError:
            return False
        except OSError as error:
            raise TargetDown("the target went away while it was checked") from error
        session.terminate()
        return True


def _said(error: BaseException) -> str:
    code = getattr(error, "sqlstate", None)
    return type(error).__name__ if code is None else f"{code} {type(error).__name__}"


async def _answers(session: Connection) -> bool:
    try:
        await session.fetchval("SELECT 1")
    except FAILURES:
        return False
    return True
