"""An account that is lent: to one lease at a time, with a password nobody had before and nobody has after."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.engines.protocol import Claim
from broker.errors import CheckedOut, NotPossible, NotYet, OutcomeUnknown, TargetDown
from broker.lifecycle.obtain import HandOver
from broker.model.lease import CloseReason, LeaseState
from ca.errors import Conflict, Problem, Unavailable
from fakes.lent_account import Shelf, shelf
from fakes.stores import on_every_store  # noqa: F401 - a fixture
from servers.static_place import account_role

pytestmark = pytest.mark.usefixtures("on_every_store")


async def settled(there: Shelf) -> None:
    """A minute of ticks."""
    for _ in range(8):
        await there.house.clock.advance(16)
        await there.house.reap()


async def test_it_is_lent_to_one_at_a_time(tmp_path: Path) -> None:
    """The second hears until when, and gets it as soon as the first gave it back; the first's password is dead."""
    async with shelf(tmp_path) as there:
        house = there.house
        first, second = await house.open(), await house.open()
        held = await house.held(first)
        session = there.log_in(held)
        assert session is not None
        assert there.accounts.log_in("legacy", "old-password") is None
        with pytest.raises(CheckedOut) as refused:
            await house.held(second)
        assert refused.value.retryable
        assert refused.value.details["until"] == held.lease.until.isoformat()
        await house.end(first)
        await house.reap()
        assert (await house.lease(held.lease.id)).state is LeaseState.REVOKED
        assert (there.log_in(held), session.open) == (None, False)
        assert there.log_in(await house.held(second)) is not None


async def test_of_two_in_the_same_moment_one_wins(tmp_path: Path) -> None:
    """Whoever lost is told to ask again, and nothing of it is left open."""
    async with shelf(tmp_path) as there:
        house = there.house
        both = [await house.open(), await house.open()]
        answers = await asyncio.gather(*(house.held(task) for task in both), return_exceptions=True)
        given = [answer for answer in answers if isinstance(answer, HandOver)]
        assert [type(answer) for answer in answers if answer not in given] == [CheckedOut]
        assert there.log_in(given[0]) is not None
        assert len(await house.leases()) == 1


@pytest.mark.parametrize("verb", ["change_password", "cut_sessions", "opens"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [TargetDown("down"), OutcomeUnknown("no answer"), Conflict("not this one")])
async def test_a_check_out_that_fails_half_way_leaves_nothing(
    tmp_path: Path, verb: str, error: Problem, *, after: bool
) -> None:
    """Nobody was told a password; the account can be lent again soon. Once it has another, nothing is called unsent."""
    raised = OutcomeUnknown if isinstance(error, TargetDown) and verb != "change_password" else type(error)
    async with shelf(tmp_path) as there:
        house = there.house
        task = await house.open()
        there.accounts.fail(verb, after=after, error=error)
        with pytest.raises(raised):
            await house.obtain(task)
        await settled(there)
        (lease,) = await house.leases()
        assert (lease.is_closed, lease.close_reason) == (True, CloseReason.NEVER_MADE)
        assert there.log_in(await house.held(task)) is not None


@pytest.mark.parametrize("verb", ["change_password", "cut_sessions", "opens"])
@pytest.mark.parametrize("after", [False, True])
async def test_a_check_in_is_repeated_until_it_was_seen(tmp_path: Path, verb: str, *, after: bool) -> None:
    """Until then the lease is not closed, and nobody else gets the account."""
    async with shelf(tmp_path) as there:
        house = there.house
        first, second = await house.open(), await house.open()
        held = await house.held(first)
        there.accounts.fail(verb, after=after, times=3)
        await house.end(first)
        await house.reap()
        assert (await house.lease(held.lease.id)).state is LeaseState.REVOKING
        with pytest.raises(Unavailable):
            await house.held(second)
        await settled(there)
        assert (await house.lease(held.lease.id)).state is LeaseState.REVOKED
        assert there.log_in(held) is None


async def test_a_password_set_from_inside_is_no_way_back(tmp_path: Path) -> None:
    """A session that changes the password before it is cut is noticed by the login that comes after the cut."""
    async with shelf(tmp_path) as there:
        house = there.house
        task = await house.open()
        held = await house.held(task)
        session = there.log_in(held)
        assert session is not None
        cut = there.accounts.cut_sessions

        async def late(account: str) -> int:
            if session.open:
                session.set_password("a way back")
            return await cut(account)

        there.accounts.cut_sessions = late  # type: ignore[method-assign]
        await house.end(task)
        await house.reap()
        assert "does not log in" in str((await house.lease(held.lease.id)).trouble)
        await settled(there)
        assert (await house.lease(held.lease.id)).state is LeaseState.REVOKED
        assert there.accounts.log_in("legacy", "a way back") is None


async def test_a_broker_that_died_leaves_it_to_the_next(tmp_path: Path) -> None:
    """The claim is durable: what was lent stays lent, and is checked in by whoever runs."""
    async with shelf(tmp_path) as there:
        task = await there.house.open()
        held = await there.house.held(task)
        clock, accounts = there.house.clock, there.accounts
    async with shelf(tmp_path, clock=clock, accounts=accounts) as there:
        other = await there.house.open()
        with pytest.raises(CheckedOut):
            await there.house.held(other)
        await there.house.end(task)
        await there.house.reap()
        assert there.log_in(held) is None
        assert there.log_in(await there.house.held(other)) is not None


async def test_it_is_lent_for_a_stated_time(tmp_path: Path) -> None:
    """Nothing at the target ends it, so nothing is gained by renewals: it runs out, and is checked in."""
    async with shelf(tmp_path) as there:
        held = await there.house.held(await there.house.open())
        assert held.lease.until == held.lease.last
        await there.house.clock.advance(there.house.role.ttl.total_seconds() + 1)
        await there.house.reap()
        lease = await there.house.lease(held.lease.id)
        assert (lease.state, lease.close_reason) == (LeaseState.REVOKED, CloseReason.RAN_OUT)
        assert there.log_in(held) is None


async def test_a_lost_answer_is_another_check_out(tmp_path: Path) -> None:
    """Whoever asks again with the same key is told to; the first password dies meanwhile."""
    async with shelf(tmp_path) as there:
        house = there.house
        task = await house.open()
        lost = await house.obtain(task, key="k")
        with pytest.raises(Unavailable):
            await house.obtain(task, key="k")
        await settled(there)
        assert there.log_in(lost) is None
        assert there.log_in(await house.obtain(task, key="k")) is not None


async def test_the_target_beneath_must_be_ours(tmp_path: Path) -> None:
    """Another installation lends the same account: then this one does not."""
    async with shelf(tmp_path) as there:
        there.accounts.target.claim = Claim(installation="zzzzzzzz", incarnation="one")
        with pytest.raises(Conflict):
            await there.house.obtain(await there.house.open())
        assert there.accounts.done == []
        assert await there.house.leases() == []


@pytest.mark.parametrize(("account", "words"), [("nobody", "no such account"), ("root", "logs in as")])
async def test_an_account_that_can_t_be_lent_is_said(tmp_path: Path, account: str, words: str) -> None:
    """One that is not there, and the one the broker itself logs in as: nothing is changed, nothing is left open."""
    async with shelf(tmp_path, the_role=account_role(account=account)) as there:
        with pytest.raises(NotPossible, match=words):
            await there.house.obtain(await there.house.open())
        (lease,) = await there.house.leases()
        assert (lease.is_closed, lease.close_reason) == (True, CloseReason.NEVER_MADE)
        assert there.accounts.passwords["root"] == "named"


async def test_a_look_that_fails_is_told(tmp_path: Path) -> None:
    """Nothing was handed over."""
    async with shelf(tmp_path) as there:
        there.accounts.fail("opens", error=NotYet("not yet"))
        with pytest.raises(NotYet):
            await there.house.obtain(await there.house.open())
        await settled(there)
        there.accounts.fail("cut_sessions", error=NotPossible("settings were read again"))
        with pytest.raises(NotYet):
            await there.house.obtain(await there.house.open())


async def test_an_account_that_went_away_is_not_called_ended(tmp_path: Path) -> None:
    """Whoever was in may still be: the lease stays open, and says why."""
    async with shelf(tmp_path) as there:
        task = await there.house.open()
        held = await there.house.held(task)
        del there.accounts.passwords["legacy"]
        await there.house.end(task)
        await there.house.reap()
        lease = await there.house.lease(held.lease.id)
        assert (lease.state, lease.trouble) == (LeaseState.REVOKING, "there is no such account")
