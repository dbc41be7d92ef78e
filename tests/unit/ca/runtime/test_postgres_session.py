"""Connections to PostgreSQL: who is believed to be the server."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from ca.errors import Malformed, Unavailable
from ca.runtime.database import Transaction, open_database
from fakes.stores import create, ids, insert
from fakes.web_pki import WebAuthority
from servers.postgres import installations, postgres


def _private(path: Path, content: bytes) -> Path:
    """Readable by the server's user alone, as it wants its key."""
    path.write_bytes(content)
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, pwd.getpwnam("postgres").pw_uid, -1)
        for folder in (path.parent, *path.parent.parents[:2]):
            folder.chmod(0o755)
    return path


async def test_a_server_is_believed_by_its_certificate_only(tmp_path: Path) -> None:
    """The right root and the right name; `require` takes anybody, and says so in its name."""
    right, wrong = WebAuthority(), WebAuthority()
    pem = _private(tmp_path / "server.pem", right.server_pem("127.0.0.1"))
    for name, one in (("right", right), ("wrong", wrong)):
        (tmp_path / f"{name}.pem").write_bytes(one.pem)
    options = ("ssl=on", f"ssl_cert_file={pem}", f"ssl_key_file={pem}")
    async with postgres(options=options, fresh=True) as server:
        address = await server.store("tls")
        good = f"{address}&sslmode=verify&sslrootcert={tmp_path}/right.pem"
        for asked in (good, f"{address}&sslmode=require"):
            async with open_database(asked) as store:
                await store.write(create) if asked is good else await store.write(insert(1))
                assert await ids(store) == ([] if asked is good else [1])
        refused = (
            f"{address}&sslmode=verify&sslrootcert={tmp_path}/wrong.pem",
            f"{address}&sslmode=verify",
            good.replace("127.0.0.1", "localhost"),
        )
        for asked in refused:
            with pytest.raises(Unavailable, match="can't be reached"):
                async with open_database(asked):
                    pass


async def test_a_server_that_speaks_no_tls_is_not_spoken_to_in_clear() -> None:
    """Not even for the login."""
    async with postgres() as server:
        address = await server.store("clear")
        with pytest.raises(Unavailable):
            async with open_database(f"{address}&sslmode=require"):
                pass


async def test_a_wrong_password_and_a_missing_one_are_told_apart(tmp_path: Path) -> None:
    """Neither is repeated."""
    async with postgres() as server:
        address = await server.store("login")
        (tmp_path / "wrong").write_text("hunter2")
        base = address.partition("?")[0]
        with pytest.raises(Unavailable, match="refused our login") as caught:
            async with open_database(f"{base}?password=file:{tmp_path}/wrong"):
                pass
        assert "hunter2" not in str(caught.value)
        with pytest.raises(Malformed, match="can't read"):
            async with open_database(f"{base}?password=file:{tmp_path}/none"):
                pass


@pytest.mark.parametrize("name", installations())
async def test_every_release_that_is_here_can_hold_a_store_and_the_host_that_answers_is_found(name: str) -> None:
    """By a role that owns its database and nothing else."""
    async with postgres(installations()[name], fresh=True) as server:
        address = await server.store("any")
        async with open_database(address.replace("@", "@127.0.0.1:1,")) as store:
            await store.write(create)
            await store.write(insert(1))
            assert await ids(store) == [1]


async def test_a_session_that_is_frozen_in_a_transaction_is_ended_by_the_server() -> None:
    """So that one of us that hangs holds up the others for seconds and not for ever."""

    async def unit(tx: Transaction) -> list[str]:
        names = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout")
        rows = [await tx.fetchrow("SELECT current_setting($1) AS value", name) for name in names]
        return [row["value"] for row in rows if row is not None]

    async with postgres() as server, open_database(await server.store("frozen")) as store:
        assert await store.write(unit) == await store.read(unit) == ["5s", "10s", "1min"]
