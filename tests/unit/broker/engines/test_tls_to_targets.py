"""TLS to real targets: verified by default, required of leased users, and never given up for a server that has none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.engines import mysql, redis
from broker.engines.protocol import Lent
from broker.errors import TargetDown
from ca.runtime.clock import SystemClock
from fakes.web_pki import WebAuthority
from fakes.world import role
from servers import mariadb_place, redis_place
from servers.mariadb import mariadb
from servers.redis import redis as redis_server
from servers.standing import free_port


@pytest.fixture(scope="module")
def pki() -> Iterator[Path]:
    """`good.pem` signed `server.pem` for 127.0.0.1; `other.pem` did not."""
    with tempfile.TemporaryDirectory(prefix="sj-tls-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        good = WebAuthority("targets")
        (folder / "good.pem").write_bytes(good.pem)
        (folder / "other.pem").write_bytes(WebAuthority("others").pem)
        (folder / "server.pem").write_bytes(good.server_pem("127.0.0.1"))
        (folder / "server.pem").chmod(0o644)  # the server has a user of its own
        yield folder


async def test_mariadb_is_verified_and_leased_users_must_use_tls(pki: Path) -> None:
    """By its CA and name; a leased user's login in clear is refused by the server."""
    options, clock = (f"--ssl-cert={pki / 'server.pem'}", f"--ssl-key={pki / 'server.pem'}"), SystemClock()
    async with mariadb(options=options, fresh=True) as server, server.room() as room:
        the_role = role(engine="mysql", settings={"privileges": {room.schema: ["SELECT"]}})
        good = mariadb_place.settings_for(room, tls="verify", tls_ca=pki / "good.pem")
        async with mysql.open_engine(good, Lent(clock=clock)) as engine:
            handle, until = engine.plan(the_role, "sj_aaaaaaaa_" + "a" * 20), clock.now() + timedelta(seconds=60)
            issued = await engine.create(handle, the_role, until, until)
            password, trusted = issued.secret["password"].reveal(), f"--ssl-ca={pki / 'good.pem'}"
            assert server.client(handle.name, password, "SELECT 1", trusted).returncode == 0
            assert server.client(handle.name, password, "SELECT 1", "--skip-ssl").returncode != 0
            assert issued.secret["url"].reveal().endswith("?ssl-mode=VERIFY_IDENTITY")
            assert all(found.well for found in await engine.check([the_role], "sj_aaaaaaaa_"))
        for wrong in ({"tls_ca": pki / "other.pem"}, {}, {"host": "localhost", "tls_ca": pki / "good.pem"}):
            said = mariadb_place.settings_for(room, **{"tls": "verify", **wrong})
            async with mysql.open_engine(said, Lent(clock=clock)) as engine:
                with pytest.raises(TargetDown):
                    await engine.names("sj_aaaaaaaa_")
        async with mysql.open_engine(mariadb_place.settings_for(room, tls="require"), Lent(clock=clock)) as engine:
            assert await engine.names("sj_aaaaaaaa_") == [handle.name]


async def test_a_mariadb_without_tls_is_not_spoken_to_in_clear(pki: Path) -> None:
    """Neither by `verify` nor by `require`."""
    async with mariadb(options=("--skip-ssl",), fresh=True) as server, server.room() as room:
        for mode in ("require", "verify"):
            said = mariadb_place.settings_for(room, tls=mode, tls_ca=pki / "good.pem")
            async with mysql.open_engine(said, Lent(clock=SystemClock())) as engine:
                with pytest.raises(TargetDown):
                    await engine.names("sj_aaaaaaaa_")


async def test_redis_is_verified(pki: Path) -> None:
    """By its CA and name."""
    port, clock = free_port(), SystemClock()
    options = [f"tls-port {port}", f"tls-cert-file {pki / 'server.pem'}", f"tls-key-file {pki / 'server.pem'}"]
    options += [f"tls-ca-cert-file {pki / 'good.pem'}", "tls-auth-clients no"]
    async with redis_server(options=options) as server, server.room() as room:
        the_role = role(engine="redis", settings={"keys": [room.key], "commands": ["+@read"]})
        good = redis_place.settings_for(room, port=port, tls="verify", tls_ca=pki / "good.pem")
        async with redis.open_engine(good, Lent(clock=clock)) as engine:
            assert all(found.well for found in await engine.check([the_role], "sj_aaaaaaaa_"))
            handle, until = engine.plan(the_role, "sj_aaaaaaaa_" + "a" * 20), clock.now() + timedelta(seconds=60)
            issued = await engine.create(handle, the_role, until, until)
            assert issued.secret["url"].reveal().startswith("rediss://")
        wrongs: list[dict[str, Any]] = [
            {"tls_ca": pki / "other.pem"},
            {},
            {"host": "localhost", "tls_ca": pki / "good.pem"},
        ]
        for wrong in wrongs:
            said = redis_place.settings_for(room, **{"port": port, "tls": "verify", **wrong})
            async with redis.open_engine(said, Lent(clock=clock)) as engine:
                with pytest.raises(TargetDown):
                    await engine.names("sj_aaaaaaaa_")
        required = redis_place.settings_for(room, port=port, tls="require")
        async with redis.open_engine(required, Lent(clock=clock)) as engine:
            assert await engine.names("sj_aaaaaaaa_") == [handle.name]
