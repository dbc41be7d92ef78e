"""The law of an engine (`broker/engines/protocol.py`), over every engine on real targets, and over the fake.

A test names the traits it needs; `test_the_traits_are_what_the_engine_says` keeps them honest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from broker.engines import ENGINES
from broker.engines.naming import LONGEST
from broker.engines.protocol import Checkable, Claimable, Engine, Issued, Listing, Making, Rotating
from broker.errors import NotPossible
from broker.model.lease import EXCLUSIVE, Handle
from broker.model.role import IfDown, NewAccess, OpenSessions
from ca.errors import Conflict, NotFound, Problem
from servers.place import Place, Trait
from servers.places import PLACES, having


def on(*traits: Trait, lacking: Trait | None = None) -> pytest.MarkDecorator:
    """Every target that has these traits."""
    return pytest.mark.parametrize("place", having(*traits, lacking=lacking), indirect=True)


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """One target."""
    async with PLACES[request.param].open() as found:
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
    until = soon(place, place.role.ttl.total_seconds())
    issued: Issued = await place.engine.create(handle, place.role, until, soon(place, 10))
    return issued


async def names(place: Place) -> list[str]:
    """What is there, as far as the engine can tell."""
    return list(await place.engine.names(place.prefix)) if isinstance(place.engine, Listing) else []


async def gone(place: Place, handle: Handle) -> None:
    """End it and leave nothing."""
    await place.engine.end_access(handle)
    await place.engine.clean_up(handle)
    assert handle.name not in await names(place)


def test_every_kind_in_the_table_is_tried_here() -> None:
    """Each kind in ENGINES has a real target in this suite."""
    assert set(ENGINES) <= {kind.engine for kind in PLACES.values()}


async def test_the_traits_are_what_the_engine_says(place: Place, request: pytest.FixtureRequest) -> None:
    """An engine says what taking back means, and which powers it has."""
    engine: Engine = place.engine
    kind, guarantee = PLACES[request.node.callspec.params["place"]], engine.guarantee(place.role)
    assert engine.kind == kind.engine
    said = {
        Trait.LISTS: isinstance(engine, Listing),
        Trait.CLAIMS: isinstance(engine, Claimable),
        Trait.PROVES: isinstance(engine, Checkable),
        Trait.ROTATES: isinstance(engine, Rotating),
        Trait.EXCLUSIVE: EXCLUSIVE in planned(place).facts,
        Trait.CREATE_ONLY: engine.making is Making.CREATE_ONLY,
        Trait.AT_ONCE: guarantee.new_access is NewAccess.AT_ONCE,
        Trait.CUTS: guarantee.open_sessions is OpenSessions.CUT,
        Trait.EXPIRES: guarantee.if_down is IfDown.TARGET_ENDS_IT,
    }
    assert {trait for trait, true in said.items() if true} == kind.traits & said.keys()
    if Trait.EXPIRES in kind.traits:
        assert guarantee.if_down_within is not None
        assert guarantee.if_down_within >= place.role.ttl.total_seconds()


async def test_a_plan_is_pure_and_names_the_principal(place: Place) -> None:
    """The same role and name give the same handle, and nothing appears at the target."""
    assert planned(place) == planned(place)
    assert len(planned(place).name) <= LONGEST
    assert not await names(place)


async def test_what_was_created_is_let_in(place: Place) -> None:
    """The secret opens a session, and where principals can be listed the name is found by its prefix."""
    handle = planned(place)
    visit = await place.login(await made(place, handle))
    assert visit is not None
    assert await visit.answers()
    assert await names(place) == ([handle.name] if isinstance(place.engine, Listing) else [])
    await gone(place, handle)


@on(Trait.CREATE_ONLY)
async def test_a_principal_is_never_made_twice(place: Place) -> None:
    """A second create is refused, and the first secret goes on working."""
    handle = planned(place)
    issued = await made(place, handle)
    with pytest.raises(Conflict):
        await made(place, handle)
    assert await place.login(issued) is not None


@on(Trait.REPLACES, lacking=Trait.CREATE_ONLY)
async def test_a_principal_that_is_made_again_is_made_anew(place: Place) -> None:
    """Where a name can't be refused, nothing of the first is left: neither its secret nor what it opened."""
    handle = planned(place)
    first = await made(place, handle)
    second = await made(place, handle)
    assert await place.login(first) is None
    assert await place.login(second) is not None
    await gone(place, handle)


@on(Trait.JUDGES)
async def test_a_call_after_its_deadline_does_nothing(place: Place) -> None:
    """The target judges by its own clock when the statement arrives."""
    handle = planned(place)
    with pytest.raises(Problem):
        await place.engine.create(handle, place.role, soon(place), soon(place, -1))
    assert not await names(place)


@on(Trait.EXPIRES, Trait.HANDS_OVER, Trait.RENEWS)
async def test_a_past_end_lets_nobody_in(place: Place) -> None:
    """`until` ends new access without anybody's help; moving it ahead opens again."""
    handle = planned(place)
    issued = await place.engine.create(handle, place.role, soon(place, -1), soon(place, 10))
    assert await place.login(issued) is None
    await place.engine.renew(handle, soon(place))
    assert await place.login(issued) is not None


@on(Trait.CUTS)
async def test_ending_access_shuts_the_door_and_cuts_sessions(place: Place) -> None:
    """Afterwards the login is refused and what was open is dead."""
    handle = planned(place)
    issued = await made(place, handle)
    visits = [await place.login(issued) for _ in range(3)]
    ended = await place.engine.end_access(handle)
    assert ended.sessions_cut == 3
    assert [await visit.answers() for visit in visits if visit is not None] == [False] * 3
    assert await place.login(issued) is None


@on(Trait.AT_ONCE)
async def test_ending_access_shuts_the_door(place: Place) -> None:
    """Nobody new is let in from the moment the ending has answered."""
    handle = planned(place)
    issued = await made(place, handle)
    assert await place.login(issued) is not None
    await place.engine.end_access(handle)
    assert await place.login(issued) is None
    await place.engine.clean_up(handle)
    assert await place.login(issued) is None


async def test_what_can_not_be_renewed_says_so(place: Place, request: pytest.FixtureRequest) -> None:
    """Either its end moves, or it says that it stands."""
    handle = planned(place)
    await made(place, handle)
    if Trait.RENEWS in PLACES[request.node.callspec.params["place"]].traits:
        await place.engine.renew(handle, soon(place))
        return
    with pytest.raises(NotPossible):
        await place.engine.renew(handle, soon(place))


async def test_twice_is_once_and_absent_is_success(place: Place) -> None:
    """Ending and cleaning up may be repeated, also for what never was."""
    handle = planned(place)
    await made(place, handle)
    for _ in range(2):
        await place.engine.end_access(handle)
    for _ in range(2):
        await place.engine.clean_up(handle)
    assert not await names(place)
    await place.engine.end_access(handle)


@on(Trait.AT_ONCE, Trait.RENEWS)
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


@on(Trait.REPLACES)
async def test_a_replaced_secret_is_dead(place: Place) -> None:
    """One principal, another secret: the old one is refused, the new one is let in."""
    handle = planned(place)
    old = await made(place, handle)
    new = await place.engine.replace(handle, place.role, soon(place), soon(place, 10))
    assert await place.login(old) is None
    assert await place.login(new) is not None


@on(Trait.REPLACES, Trait.CUTS)
async def test_replacing_a_secret_cuts_what_it_opened(place: Place) -> None:
    """Whoever came in with the old one is out."""
    handle = planned(place)
    visit = await place.login(await made(place, handle))
    await place.engine.replace(handle, place.role, soon(place), soon(place, 10))
    assert visit is not None
    assert not await visit.answers()


@on(lacking=Trait.REPLACES)
async def test_what_can_not_be_replaced_says_so(place: Place) -> None:
    """A lost answer means another lease."""
    handle = planned(place)
    await made(place, handle)
    with pytest.raises(NotPossible):
        await place.engine.replace(handle, place.role, soon(place), soon(place, 10))


@on(Trait.REPLACES, Trait.LISTS)
async def test_replacing_what_is_gone_says_so(place: Place) -> None:
    """Nothing is made by a replacement."""
    with pytest.raises(NotFound):
        await place.engine.replace(planned(place), place.role, soon(place), soon(place, 10))
    assert not await names(place)


@on(Trait.REPLACES, Trait.AT_ONCE)
async def test_replacing_never_opens_what_was_ended(place: Place) -> None:
    """A replacement that arrives after the end is of no use to anybody."""
    handle = planned(place)
    await made(place, handle)
    await place.engine.end_access(handle)
    try:
        issued = await place.engine.replace(handle, place.role, soon(place), soon(place, 10))
    except Problem:
        return
    assert await place.login(issued) is None


@on(Trait.CREATE_ONLY)
async def test_an_occupied_name_can_never_be_made(place: Place) -> None:
    """After `occupy` nobody can log in by that name, and a late create is refused."""
    handle = planned(place)
    await place.engine.occupy(handle)
    with pytest.raises(Conflict):
        await made(place, handle)
    await place.engine.occupy(handle)
    await gone(place, handle)


@on(Trait.AT_ONCE, lacking=Trait.CREATE_ONLY)
async def test_what_came_after_it_was_given_up_is_ended_like_any_other(place: Place) -> None:
    """A name that can't be taken is ended again, and again, until its create can't come any more."""
    handle = planned(place)
    await place.engine.occupy(handle)
    issued = await made(place, handle)
    await gone(place, handle)
    assert await place.login(issued) is None


@on(Trait.LISTS)
async def test_occupying_what_was_made_leaves_it_to_be_ended(place: Place) -> None:
    """The other certainty: it exists."""
    handle = planned(place)
    await made(place, handle)
    await place.engine.occupy(handle)
    assert await names(place) == [handle.name]
    await gone(place, handle)


@on(Trait.AT_ONCE, lacking=Trait.EXCLUSIVE)
async def test_many_at_once(place: Place) -> None:
    """Concurrent creates and endings of different principals don't disturb one another."""
    handles = [planned(place, f"{number:020d}") for number in range(12)]
    issued = await asyncio.gather(*(made(place, handle) for handle in handles))
    assert all([await place.login(one) for one in issued])
    await asyncio.gather(*(place.engine.end_access(handle) for handle in handles))
    assert not any([await place.login(one) for one in issued])
    await asyncio.gather(*(place.engine.clean_up(handle) for handle in handles))
    assert not await names(place)


@on(Trait.LISTS)
async def test_names_of_others_are_not_listed(place: Place) -> None:
    """Another installation's principals are none of ours."""
    await made(place, planned(place))
    assert not await place.engine.names("sj_zzzzzzzz_")


@on(Trait.CLAIMS)
async def test_a_claimed_target_is_refused_to_another_installation(place: Place) -> None:
    """The first claim stands; adopting renews our own and nobody else's."""
    claim = await place.engine.claim("aaaaaaaa", "one")
    assert (claim.installation, claim.incarnation) == ("aaaaaaaa", "one")
    assert (await place.engine.claim("aaaaaaaa", "two")).incarnation == "one"
    with pytest.raises(Conflict):
        await place.engine.claim("bbbbbbbb", "one")
    with pytest.raises(Conflict):
        await place.engine.adopt("bbbbbbbb", "one")
    await place.engine.adopt("aaaaaaaa", "two")
    assert (await place.engine.claim("aaaaaaaa", "three")).incarnation == "two"


@on(Trait.CLAIMS, Trait.LISTS)
async def test_a_claim_is_no_principal(place: Place) -> None:
    """Whatever carries it is not listed among those that are swept, and outlives their ending."""
    await place.engine.claim("aaaaaaaa", "one")
    assert not await names(place)
    assert not await place.engine.names("sj_aaaaaaaa_")


@on(Trait.PROVES)
async def test_a_target_that_is_set_up_right_is_found_well(place: Place) -> None:
    """Everything a grant and an ending need was looked at, and the probe left nothing."""
    findings = await place.engine.check([place.role], place.prefix)
    assert findings
    assert [found for found in findings if not found.well] == []
    assert not await names(place)


@on(Trait.HANDS_OVER)
async def test_no_secret_is_printed(place: Place) -> None:
    """What is issued hides itself."""
    issued = await made(place, planned(place))
    assert issued.secret
    assert [name for name, value in issued.secret.items() if value.reveal() in repr(issued)] == []


@on(Trait.HANDS_OVER, Trait.CREATE_ONLY)
async def test_a_refusal_names_no_secret(place: Place) -> None:
    """Neither the secret nor its verifier stands in an error or in what caused it."""
    handle = planned(place)
    issued = await made(place, handle)
    with pytest.raises(Conflict) as refused:
        await made(place, handle)
    text = f"{refused.value!r} {refused.value.__cause__!r} {refused.value.__context__!r}"
    assert "SCRAM" not in text
    assert [name for name, value in issued.secret.items() if value.reveal() in text] == []
