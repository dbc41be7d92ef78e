"""T24: a role that logs in by certificate has no other door, and its CA opens nothing else."""

from __future__ import annotations

import os
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.engines.postgres import open_engine
from broker.engines.postgres.certificate import ClientAuthority
from broker.engines.protocol import Issued, Lent
from ca.errors import Malformed
from ca.keys.memory import MemoryKeyStore
from servers.postgres_place import reads, settings_for
from servers.postgres_tls import CertifiedPlace, certified_place, pki, showing


@pytest.fixture
async def place() -> AsyncIterator[CertifiedPlace]:
    """A room of a real server that asks for certificates."""
    async with certified_place() as found:
        yield found


async def issue(place: CertifiedPlace, seconds: float = 60, name: str = "x" * 20) -> Issued:
    """A certificate of a role that was made for it."""
    handle = place.engine.plan(place.role, place.prefix + name)
    until = place.clock.now() + timedelta(seconds=seconds)
    issued: Issued = await place.engine.create(handle, place.role, until, place.clock.now() + timedelta(seconds=10))
    return issued


async def by_password(place: CertifiedPlace, name: str, password: str, tls: ssl.SSLContext | None) -> str:
    """What the server says to a password."""
    try:
        session = await place.room.connect(name, password, ssl=tls or False)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    except OSError:
        return "hung up"
    session.terminate()
    return "let in"


async def test_the_certificate_says_who_for_what_and_until_when(place: CertifiedPlace) -> None:
    """The name of the role and nothing more, for clients only, until the end of the lease."""
    issued = await issue(place)
    leaf = x509.load_pem_x509_certificate(str(issued.fields["certificate"]).encode())
    assert [one.value for one in leaf.subject] == [issued.fields["username"]]
    (name,) = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert len(str(name.value).encode()) <= 63
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(usage.value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    left = (leaf.not_valid_after_utc - place.clock.now()).total_seconds()
    assert 50 < left <= 60
    shown = f"{issued!r} {place.server.log}"
    assert issued.secret["private_key"].reveal().splitlines()[1] not in shown


async def test_a_certificate_that_ran_out_lets_nobody_in(place: CertifiedPlace) -> None:
    """The target ends it by itself: no broker is asked."""
    issued = await issue(place, seconds=-1)
    assert await place.login(issued) is None


@pytest.mark.parametrize("shut", [True, False], ids=["rejected", "without the line that rejects"])
async def test_a_password_its_holder_sets_itself_opens_nothing(*, shut: bool) -> None:
    """Not over TLS, not in clear; and not when the owner of the database forgot the second line of `pg_hba.conf`."""
    async with certified_place(shut=shut) as place:
        issued = await issue(place)
        name, visit = str(issued.fields["username"]), await place.login(issued)
        assert visit is not None
        await visit.connection.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'")
        with pytest.raises(asyncpg.PostgresError):
            await visit.connection.execute("ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'")
        plain = ssl.create_default_context(cafile=str(pki().trusted))
        assert await by_password(place, name, "mine", plain) == "28000"
        assert await by_password(place, name, "mine", None) == ("28000" if shut else "28P01")
        (said,) = [
            found for found in await place.engine.check([place.role], place.prefix) if "certificate only" in found.name
        ]
        assert said.well is shut
        assert shut or "host all +sojourn_cert all reject" in str(said.fix)


async def test_a_certificate_opens_its_own_role_only(place: CertifiedPlace) -> None:
    """Neither a neighbour's, nor the superuser's."""
    issued, other = await issue(place), await issue(place, name="y" * 20)
    for name in (str(other.fields["username"]), "postgres", place.room.admin):
        with pytest.raises(asyncpg.PostgresError):
            await place.room.connect(name, "", ssl=showing(issued))


async def test_another_target_s_ca_is_not_believed(place: CertifiedPlace) -> None:
    """Each target has a CA of its own: the same name signed elsewhere is a stranger's."""
    issued, now = await issue(place), place.clock.now()
    name = str(issued.fields["username"])
    foreign = await ClientAuthority(MemoryKeyStore(), "another").issue(name, now, now + timedelta(seconds=60))
    forged = Issued(
        fields={**issued.fields, "certificate": foreign.certificate}, secret={"private_key": foreign.private_key}
    )
    assert await place.login(forged) is None
    assert await place.login(issued) is not None


async def test_a_ca_that_is_made_anew_from_its_key_is_the_same_to_the_server(place: CertifiedPlace) -> None:
    """Only the key is kept: what was installed once is believed after every restart."""
    first, second = await place.engine.authority(), await place.engine.authority()
    assert first != second  # another signature
    one, two = (x509.load_pem_x509_certificate(text.encode()) for text in (first, second))
    assert one.tbs_certificate_bytes == two.tbs_certificate_bytes
    assert await place.login(await issue(place)) is not None


async def test_psql_logs_in_with_what_was_handed_over(place: CertifiedPlace) -> None:
    """An unmodified client of the database's own."""
    issued = await issue(place)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "c.pem"), Path(folder, "k.pem")
        certificate.write_text(str(issued.fields["certificate"]))
        key.touch(mode=0o600)
        key.write_text(issued.secret["private_key"].reveal())
        given = {"PGSSLCERT": str(certificate), "PGSSLKEY": str(key), "PGSSLROOTCERT": str(pki().trusted)}
        command = [str(place.server.binaries / "psql"), issued.secret["url"].reveal(), "-Atc"]
        done = subprocess.run(
            [*command, "SELECT current_user, count(*) FROM orders"],
            env={"PATH": os.environ["PATH"], **given},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr) == (f"{issued.fields['username']}|3\n", "")


async def test_open_sessions_are_cut_and_the_certificate_is_worth_nothing_then(place: CertifiedPlace) -> None:
    """It has not run out, but nobody of its name may log in."""
    issued = await issue(place)
    visit = await place.login(issued)
    assert visit is not None
    assert await reads(visit.connection)
    handle = place.engine.plan(place.role, str(issued.fields["username"]))
    assert (await place.engine.end_access(handle)).sessions_cut == 1
    assert not await visit.answers()
    assert await place.login(issued) is None
    await place.engine.clean_up(handle)
    assert await place.login(issued) is None


async def test_without_keys_or_without_tls_the_kind_is_refused_when_planned(place: CertifiedPlace) -> None:
    """With a sentence that says what is missing, before anything is intended."""
    said = settings_for(place.room, secret_kind="certificate", tls="verify", tls_ca=pki().trusted)
    async with open_engine(said, Lent(clock=place.clock)) as engine:
        with pytest.raises(Malformed, match="needs `keys`"):
            engine.plan(place.role, place.prefix + "a" * 20)
    said = settings_for(place.room, secret_kind="certificate", tls="off")
    async with open_engine(said, Lent(clock=place.clock, keys=MemoryKeyStore())) as engine:
        with pytest.raises(Malformed, match="needs `tls`"):
            engine.plan(place.role, place.prefix + "a" * 20)
        (found,) = [one for one in await engine.check([], place.prefix) if one.name == "clock"]
        assert found.well


async def test_a_key_that_is_lost_at_the_next_start_is_a_finding(place: CertifiedPlace) -> None:
    """The database's owner would install a CA that is no more tomorrow."""
    said = settings_for(place.room, secret_kind="certificate", tls="verify", tls_ca=pki().trusted)
    async with open_engine(said, Lent(clock=place.clock, keys=MemoryKeyStore(), target="t")) as engine:
        (found,) = [one for one in await engine.check([place.role], place.prefix) if one.name == "client CA"]
    assert not found.well
