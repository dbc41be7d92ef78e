"""What a grant and an ending will need: a key that stays, lists that can be written, a host that answers.

Nobody logs in: an agent's key would have to be laid into a file for a client to use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import Sequence

from broker.engines.protocol import Finding
from broker.engines.ssh.certificate import UserAuthority
from broker.engines.ssh.keeper import Keeper
from broker.engines.ssh.settings import Settings
from ca.errors import Problem

_WITHIN = 8.0


async def examine(settings: Settings, authority: UserAuthority | None, keeper: Keeper | None) -> Sequence[Finding]:
    """Every finding."""
    return [await _key(authority), *await _lists(keeper), await _host(settings)]


async def _key(authority: UserAuthority | None) -> Finding:
    fix = "give the broker a place for its keys (`keys:` in its settings)"
    if authority is None:
        return Finding(name="CA key", well=False, detail="the broker keeps no keys", fix=fix)
    try:
        detail = f"{await authority.fingerprint()}; `sojourn target ca` prints the line for TrustedUserCAKeys"
    except Problem as problem:
        return Finding(name="CA key", well=False, detail=str(problem), fix=fix)
    if not authority.durable:
        return Finding(name="CA key", well=False, detail="another one after each start: it rests nowhere", fix=fix)
    return Finding(name="CA key", well=True, detail=detail)


async def _lists(keeper: Keeper | None) -> Sequence[Finding]:
    if keeper is None:
        detail = "none: a certificate can't be taken back before its expiry"
        return [Finding(name="revocation list", well=True, detail=detail)]
    where = ", ".join(map(str, keeper.paths))
    try:
        await keeper.change(lambda _: None)
    except Problem as problem:
        fix = "let the broker write the file and its folder; let hosts' `RevokedKeys` name it"
        return [Finding(name="revocation list", well=False, detail=str(problem), fix=fix)]
    found = [Finding(name="revocation list", well=True, detail=f"written: {where}")]
    for folder in sorted({path.parent for path in keeper.paths}):
        mode = stat.S_IMODE(folder.stat().st_mode)
        found.append(
            Finding(
                name="nobody else writes there",
                well=not mode & 0o022,
                detail=f"{folder} has the mode {mode:04o}",
                fix=f"chmod go-w {folder}: whoever may write there may take a name off the list",
            )
        )
    return found


async def _host(settings: Settings) -> Finding:
    at, fix = f"{settings.host}:{settings.port}", "start sshd there, or mend host and port"
    try:
        async with asyncio.timeout(_WITHIN):
            reader, writer = await asyncio.open_connection(settings.host, settings.port)
            try:
                banner = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError) as error:
        return Finding(name="reachable", well=False, detail=f"{at}: {type(error).__name__}", fix=fix)
    well = banner.startswith(b"SSH-2.0-")
    detail = ascii(banner.decode(errors="replace").strip()[:60])[1:-1] if well else f"{at} speaks no SSH"
    return Finding(name="reachable", well=well, detail=detail, fix=None if well else fix)
