"""The engine ssh against a real sshd: what a certificate permits, and that the list is believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.engines.protocol import Issued, Lent
from broker.engines.ssh import ListedSsh, Settings, open_engine
from broker.engines.ssh.keeper import Keeper
from broker.engines.ssh.ledger import Ledger
from broker.errors import NotPossible, TargetDown
from broker.model.lease import Handle
from broker.model.role import NewAccess, OpenSessions
from ca.errors import Conflict, Problem, Unavailable
from ca.keys.memory import MemoryKeyStore
from ca.runtime.clock import SystemClock
from servers.sshd import described
from servers.sshd_place import SshPlace, settings_for, sshd_place

CLOCK = SystemClock()
MINUTE = timedelta(minutes=1)


@pytest.fixture
async def place() -> AsyncIterator[SshPlace]:
    """A host that reads the list."""
    async with sshd_place() as found:
        yield found


def planned(place: SshPlace, name: str = "x" * 20, **settings: Any) -> tuple[Handle, Any]:
    """A principal, and the role it is of."""
    the_role = replace(place.role, settings={**place.role.settings, **settings})
    return place.engine.plan(the_role, place.prefix + name), the_role


async def issue(place: SshPlace, life: timedelta = MINUTE, **settings: Any) -> tuple[Handle, Issued]:
    """A certificate."""
    handle, the_role = planned(place, **settings)
    now = place.clock.now()
    return handle, await place.engine.create(handle, the_role, now + life, now + MINUTE)


async def ran(place: SshPlace, issued: Issued, *command: str, **more: Any) -> tuple[int, str, str]:
    """Log in and run a command to its end."""
    return await asyncio.to_thread(place.knock(issued, *command, **more).rest)


async def test_a_certificate_says_what_the_role_says(place: SshPlace) -> None:
    """As OpenSSH itself reads it: nothing is permitted that was not said."""
    handle, issued = await issue(place, principals=["root", "deploy"])
    shown = described(str(issued.fields["certificate"]))
    assert "user certificate" in shown
    assert f'Key ID: "{handle.name}"' in shown
    assert shown.partition("Principals:")[2].split()[:2] == ["root", "deploy"]
    assert shown.count("(none)") == 2
    assert (await place.engine.authority()).startswith("ecdsa-sha2-nistp256 ")


async def test_a_forced_command_is_all_that_runs(place: SshPlace) -> None:
    """Whatever was asked for."""
    _, issued = await issue(place, force_command="echo forced")
    assert (await ran(place, issued, "id"))[:2] == (0, "forced\n")
    shown = described(str(issued.fields["certificate"]))
    assert "force-command echo forced" in shown


async def test_no_terminal_and_no_forwarding_unless_it_was_said(place: SshPlace) -> None:
    """The host refuses what the certificate does not permit."""
    _, issued = await issue(place)
    status, _, errors = await ran(place, issued, "tty", options=["RequestTTY=force"])
    assert (status, "PTY allocation request failed" in errors) == (255, True)
    forward = f"LocalForward={place.server.folder}/f 127.0.0.1:{place.server.port}"
    session = place.knock(issued, "cat", options=[forward])
    assert await asyncio.to_thread(session.says, "in") == "in"
    reader, writer = await asyncio.open_unix_connection(place.server.folder / "f")
    assert not await reader.read(8)
    writer.close()


async def test_a_power_that_was_said_is_there(place: SshPlace) -> None:
    """A terminal."""
    _, issued = await issue(place, permit=["pty"])
    status, out, errors = await ran(place, issued, "tty", options=["RequestTTY=force"])
    assert (status, "/dev/pts/" in out) == (0, True), errors


async def test_another_user_is_refused(place: SshPlace) -> None:
    """The certificate names who may be logged in as."""
    _, issued = await issue(place)
    assert (await ran(place, issued, "id", user="nobody"))[0] == 255
    handle, the_role = planned(place, "y" * 20, principals=["somebody-else"])
    now = place.clock.now()
    other = await place.engine.create(handle, the_role, now + MINUTE, now + MINUTE)
    assert (await ran(place, other, "id"))[0] == 255


async def test_another_address_is_refused(place: SshPlace) -> None:
    """We come from 127.0.0.1."""
    _, issued = await issue(place, source_addresses=["10.0.0.0/8"])
    assert (await ran(place, issued, "id"))[0] == 255


async def test_an_expired_certificate_is_refused(place: SshPlace) -> None:
    """By the host's own clock, with no help of ours."""
    _, issued = await issue(place, -timedelta(seconds=1))
    assert (await ran(place, issued, "id"))[0] == 255
    assert "expired" in place.server.log


async def test_after_the_end_the_login_is_refused_and_a_session_survives(place: SshPlace) -> None:
    """Both are what the guarantee says; OpenSSH's own tool agrees with the host."""
    handle, issued = await issue(place)
    guarantee = place.engine.guarantee(place.role)
    assert (guarantee.new_access, guarantee.open_sessions) == (NewAccess.AT_ONCE, OpenSessions.SURVIVE)
    visit = await place.login(issued)
    assert visit is not None
    certificate = str(issued.fields["certificate"])
    assert not place.server.is_revoked(certificate)
    assert (await place.engine.end_access(handle)).endpoints == 1
    assert place.server.is_revoked(certificate)
    assert await place.login(issued) is None
    assert await visit.answers()
    assert handle.name in place.server.log


async def test_a_host_without_a_list_says_so() -> None:
    """The certificate ends at its expiry, and nothing else is claimed."""
    async with sshd_place(reads_list=False) as place:
        handle, issued = await issue(place)
        guarantee = place.engine.guarantee(place.role)
        assert (guarantee.revocable, guarantee.new_access_within) == (False, 120)
        await place.engine.end_access(handle)
        assert await place.login(issued) is not None


async def test_a_list_of_somebody_else_is_left_alone(place: SshPlace) -> None:
    """Nothing is signed that could not be taken back."""
    place.server.revocations.write_text("ssh-ed25519 AAAA mine\n")
    with pytest.raises(TargetDown, match="no key revocation list"):
        await issue(place)
    assert place.server.revocations.read_text() == "ssh-ed25519 AAAA mine\n"


async def test_a_list_that_others_may_change_is_no_list(place: SshPlace) -> None:
    """A link would be replaced while hosts read what it led to; a folder others write lets them take names off."""
    aside = place.server.folder / "elsewhere"
    aside.write_bytes(Ledger().encode(place.clock.now()))
    place.server.revocations.symlink_to(aside)
    with pytest.raises(TargetDown):
        await issue(place)
    place.server.revocations.unlink()
    place.server.folder.chmod(0o777)
    bad = [found.name for found in await place.engine.check([place.role], place.prefix) if not found.well]
    assert bad == ["nobody else writes there"]


async def test_a_list_that_was_taken_away_is_whole_again_with_the_next_change(place: SshPlace) -> None:
    """Until then the host lets nobody in."""
    handle, issued = await issue(place)
    await place.engine.end_access(handle)
    place.server.revocations.unlink()
    assert await place.login(issued) is None
    handle, the_role = planned(place, "z" * 20)
    now = place.clock.now()
    later = await place.engine.create(handle, the_role, now + MINUTE, now + MINUTE)
    assert await place.login(later) is not None
    assert await place.login(issued) is None


async def test_another_process_goes_on_from_the_list(place: SshPlace) -> None:
    """It lists what the first one signed, takes it back, and knows which names were used."""
    handle, issued = await issue(place)
    lent = Lent(clock=place.clock, target="hosts", keys=place.keys)
    async with open_engine(settings_for(place.server), lent) as other:
        assert isinstance(other, ListedSsh)
        assert await other.names(place.prefix) == [handle.name]
        with pytest.raises(Conflict):
            await other.create(handle, place.role, place.clock.now() + MINUTE, place.clock.now() + MINUTE)
        await other.end_access(handle)
    assert await place.login(issued) is None
    assert await place.engine.names(place.prefix) == []


async def test_many_who_change_one_list_lose_nothing(tmp_path: Path) -> None:
    """Other brokers, and other targets over the same file."""
    keepers = [Keeper([tmp_path / "krl"], CLOCK) for _ in range(4)]

    def revoking(name: str) -> Any:
        return lambda ledger: ledger.revoke(name, CLOCK.now())

    names = [f"n{number}" for number in range(40)]
    await asyncio.gather(*(keepers[i % 4].change(revoking(name)) for i, name in enumerate(names)))
    assert set(Ledger.decode((tmp_path / "krl").read_bytes()).entries) == set(names)
    assert (tmp_path / "krl").stat().st_mode & 0o777 == 0o644


async def test_all_lists_of_a_target_say_the_same(tmp_path: Path) -> None:
    """One that can't be written is no ending, and no signature."""
    paths = [tmp_path / "one", tmp_path / "missing" / "two"]
    lent = Lent(clock=CLOCK, target="hosts", keys=MemoryKeyStore())
    async with sshd_place() as place, open_engine(Settings(host="a", revocations=tuple(paths)), lent) as engine:
        handle, until = engine.plan(place.role, "sj_aaaaaaaa_x"), CLOCK.now() + MINUTE
        for work in (engine.create(handle, place.role, until, until), engine.end_access(handle)):
            with pytest.raises(TargetDown, match="missing/two"):
                await work
        paths[1].parent.mkdir()
        assert (await engine.end_access(handle)).endpoints == 2
        assert paths[0].read_bytes() == paths[1].read_bytes()


async def test_what_came_too_late_is_not_handed_over(place: SshPlace) -> None:
    """Nothing is noted when it is known before."""
    handle, the_role = planned(place)
    with pytest.raises(Unavailable):
        await place.engine.create(handle, the_role, place.clock.now() + MINUTE, place.clock.now() - MINUTE)
    assert not await place.engine.names(place.prefix)


async def test_without_keys_nothing_is_signed_and_the_check_says_so(place: SshPlace) -> None:
    """And with keys that rest nowhere, hosts would have to be told anew."""
    for keys, words in ((None, "keeps no keys"), (MemoryKeyStore(), "rests nowhere")):
        lent = Lent(clock=place.clock, target="hosts", keys=keys)
        async with open_engine(settings_for(place.server), lent) as engine:
            bad = [found for found in await engine.check([place.role], place.prefix) if not found.well]
            assert [words in found.detail for found in bad] == [True]
            if keys is None:
                with pytest.raises(NotPossible):
                    await engine.create(planned(place)[0], place.role, place.clock.now(), place.clock.now() + MINUTE)


async def test_each_target_has_a_key_of_its_own(place: SshPlace) -> None:
    """One that another host believes opens nothing here."""
    lent = Lent(clock=place.clock, target="others", keys=place.keys)
    async with open_engine(settings_for(place.server), lent) as engine:
        handle, now = planned(place)[0], place.clock.now()
        issued = await engine.create(handle, place.role, now + MINUTE, now + MINUTE)
    assert await place.login(issued) is None
    with pytest.raises(Problem):
        await place.engine.create(handle, place.role, now + MINUTE, now + MINUTE)
