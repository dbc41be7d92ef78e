"""The law of an engine (`broker/engines/protocol.py`), over every engine on real targets, and over the fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from broker.engines import ENGINES
from broker.engines.naming import LONGEST
from broker.engines.protocol import Claimable, Engine, Issued, Listing
from broker.model.lease import Handle
from ca.errors import Conflict, NotFound, Problem
from servers.places import PLACES, WITH_SECRETS, Place


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """One target."""
    async with PLACES[request.param]() as found:
        yield found


@pytest.fixture(params=WITH_SECRETS)
async def keeper(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """One target that hands over a secret."""
    async with PLACES[request.param]() as found:
        yield found


def planned(place: Place, name: str = "a" * 20) -> Handle:
    """A principal of this place."""
    handle: Handle = place.engine.plan(place.role, place.prefix + name)
    return handle


def soon(place: Place, seconds: float = 60) -> datetime:
    """A moment ahead."""
    return place.clock.now() + timedelta(seconds=seconds)


async def made(place: Place, handle: Handle) -> Issued:
    """A principal that exists."""
    issued: Issued = await place.engine.create(handle, place.role, soon(place), soon(place, 10))
    return issued


def test_every_kind_in_the_table_is_tried_here() -> None:
    """Each kind in ENGINES has a real target in this suite."""
    tried = {name.partition("-")[0].replace("debian", "postgres").replace("embedded", "postgres") for name in PLACES}
    assert set(ENGINES) <= tried


async def test_a_plan_is_pure_and_names_the_principal(place: Place) -> None:
    """The same role and name give the same handle, and nothing appears at the target."""
    assert planned(place) == planned(place)
    assert len(planned(place).name) <= LONGEST
    assert not await place.engine.names(place.prefix)


async def test_what_was_created_is_let_in_and_listed(place: Place) -> None:
    """The secret opens a session, and the name is found by its prefix."""
    handle = planned(place)
    visit = await place.login(await made(place, handle))
    assert visit is not None
    assert await visit.answers()
    assert list(await place.engine.names(place.prefix)) == [handle.name]
    await place.engine.end_access(handle)
    await place.engine.clean_up(handle)


async def test_a_principal_is_never_made_twice(place: Place) -> None:
    """A second create is refused, and the first secret goes on working."""
    handle = planned(place)
    issued = await made(place, handle)
    with pytest.raises(Conflict):
        await made(place, handle)
    assert await place.login(issued) is not None


async def test_a_call_after_its_deadline_does_nothing(place: Place) -> None:
    """The target judges by its own clock when the statement arrives."""
    handle = planned(place)
    with pytest.raises(Problem):
        await place.engine.create(handle, place.role, soon(place), soon(place, -1))
    assert not await place.engine.names(place.prefix)


async def test_a_past_end_lets_nobody_in(keeper: Place) -> None:
    """`until` ends new access without anybody's help; moving it ahead opens again."""
    handle = planned(keeper)
    issued = await keeper.engine.create(handle, keeper.role, soon(keeper, -1), soon(keeper, 10))
    assert await keeper.login(issued) is None
    await keeper.engine.renew(handle, soon(keeper))
    assert await keeper.login(issued) is not None


async def test_ending_access_shuts_the_door_and_cuts_sessions(place: Place) -> None:
    """Afterwards the login is refused and what was open is dead."""
    handle = planned(place)
    issued = await made(place, handle)
    visits = [await place.login(issued) for _ in range(3)]
    ended = await place.engine.end_access(handle)
    assert ended.sessions_cut == 3
    assert [await visit.answers() for visit in visits if visit is not None] == [False] * 3
    assert await place.login(issued) is None


async def test_twice_is_once_and_absent_is_success(place: Place) -> None:
    """Ending and cleaning up may be repeated, also for what never was."""
    handle = planned(place)
    await made(place, handle)
    for _ in range(2):
        await place.engine.end_access(handle)
    for _ in range(2):
        await place.engine.clean_up(handle)
    assert not await place.engine.names(place.prefix)
    await place.engine.end_access(handle)


async def test_renewal_never_opens_what_was_ended(place: Place) -> None:
    """A renewal that arrives after the end gives nobody anything back."""
    handle = planned(place)
    issued = await made(place, handle)
    await place.engine.end_access(handle)
    await place.engine.renew(handle, soon(place))
    assert await place.login(issued) is None
    await place.engine.clean_up(handle)
    with pytest.raises(NotFound):
        await place.engine.renew(handle, soon(place))


async def test_a_replaced_secret_is_dead_with_everything_it_opened(keeper: Place) -> None:
    """One principal, another secret: the old one is refused, its sessions are cut, the new one is let in."""
    handle = planned(keeper)
    old = await made(keeper, handle)
    visit = await keeper.login(old)
    new = await keeper.engine.replace(handle, keeper.role, soon(keeper), soon(keeper, 10))
    assert visit is not None
    assert not await visit.answers()
    assert await keeper.login(old) is None
    assert await keeper.login(new) is not None


async def test_replacing_what_is_gone_says_so(keeper: Place) -> None:
    """Nothing is made by a replacement."""
    with pytest.raises(NotFound):
        await keeper.engine.replace(planned(keeper), keeper.role, soon(keeper), soon(keeper, 10))
    assert not await keeper.engine.names(keeper.prefix)


async def test_replacing_never_opens_what_was_ended(keeper: Place) -> None:
    """A replacement that arrives after the end is of no use to anybody."""
    handle = planned(keeper)
    await made(keeper, handle)
    await keeper.engine.end_access(handle)
    try:
        issued = await keeper.engine.replace(handle, keeper.role, soon(keeper), soon(keeper, 10))
    except Problem:
        return
    assert await keeper.login(issued) is None


async def test_an_occupied_name_can_never_be_made(place: Place) -> None:
    """After `occupy` nobody can log in by that name, and a late create is refused."""
    handle = planned(place)
    await place.engine.occupy(handle)
    with pytest.raises(Conflict):
        await made(place, handle)
    await place.engine.occupy(handle)
    await place.engine.end_access(handle)
    await place.engine.clean_up(handle)
    assert not await place.engine.names(place.prefix)


async def test_occupying_what_was_made_leaves_it_to_be_ended(place: Place) -> None:
    """The other certainty: it exists."""
    handle = planned(place)
    await made(place, handle)
    await place.engine.occupy(handle)
    assert list(await place.engine.names(place.prefix)) == [handle.name]
    await place.engine.end_access(handle)
    await place.engine.clean_up(handle)


async def test_many_at_once(place: Place) -> None:
    """Concurrent creates and endings of different principals don't disturb one another."""
    handles = [planned(place, f"{number:020d}") for number in range(12)]
    issued = await asyncio.gather(*(made(place, handle) for handle in handles))
    assert all([await place.login(one) for one in issued])
    await asyncio.gather(*(place.engine.end_access(handle) for handle in handles))
    assert not any([await place.login(one) for one in issued])
    await asyncio.gather(*(place.engine.clean_up(handle) for handle in handles))
    assert not await place.engine.names(place.prefix)


async def test_names_of_others_are_not_listed(place: Place) -> None:
    """Another installation's principals are none of ours."""
    await made(place, planned(place))
    assert not await place.engine.names("sj_zzzzzzzz_")


async def test_a_claimed_target_is_refused_to_another_installation(keeper: Place) -> None:
    """The first claim stands; adopting renews our own and nobody else's."""
    claim = await keeper.engine.claim("aaaaaaaa", "one")
    assert (claim.installation, claim.incarnation) == ("aaaaaaaa", "one")
    assert (await keeper.engine.claim("aaaaaaaa", "two")).incarnation == "one"
    with pytest.raises(Conflict):
        await keeper.engine.claim("bbbbbbbb", "one")
    with pytest.raises(Conflict):
        await keeper.engine.adopt("bbbbbbbb", "one")
    await keeper.engine.adopt("aaaaaaaa", "two")
    assert (await keeper.engine.claim("aaaaaaaa", "three")).incarnation == "two"


async def test_no_secret_is_printed(keeper: Place) -> None:
    """What is issued hides itself, and a refusal names no secret."""
    handle = planned(keeper)
    issued = await made(keeper, handle)
    assert issued.secret["password"].reveal() not in repr(issued)
    with pytest.raises(Conflict) as refused:
        await made(keeper, handle)
    assert "SCRAM" not in f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"


async def test_the_guarantee_and_the_powers_are_stated(place: Place) -> None:
    """An engine says what taking back means, and which powers it has."""
    engine: Engine = place.engine
    powers: list[type] = [Listing, Claimable] if engine.kind != "svid" else [Listing]
    assert all(isinstance(engine, power) for power in powers)
    assert engine.guarantee(place.role).if_down_within == place.role.ttl.total_seconds()
