"""What no engine takes, whichever kind: a role that can't be meant, a name nobody has, credentials that are wrong.

The table of `docs/engines/README.md` says it in words. A revoke that answers "no such user", and everything twice,
stand in `test_engines.py`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.engines import load
from broker.engines.naming import LONGEST
from broker.engines.protocol import Lent
from broker.errors import TargetDown
from ca.errors import Malformed, Problem
from ca.runtime.secret import Reference
from servers.place import Place
from servers.places import PLACES

_ONE_OF_EACH = {kind.engine: name for name, kind in reversed(PLACES.items()) if kind.engine not in {"fake", "svid"}}
_NAMED = ("postgres", "mysql", "redis", "rabbitmq", "ssh", "kubernetes")


@pytest.fixture
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """One target."""
    async with PLACES[request.param].open() as found:
        yield found


def each(*kinds: str) -> pytest.MarkDecorator:
    """A target of each of these kinds."""
    return pytest.mark.parametrize("place", [_ONE_OF_EACH[kind] for kind in kinds], indirect=True)


@each(*_ONE_OF_EACH)
async def test_a_role_that_can_t_be_meant_is_refused_before_anything(place: Place) -> None:
    """An unknown key, a value of another type, SQL where a name goes: `Malformed`, when it is planned."""
    escaping = dict.fromkeys(place.role.settings, 'x"; DROP ROLE admin; --') or {"role": "x"}
    for settings in ({**place.role.settings, "no_such_key": True}, {**escaping, "commands": 7}):
        with pytest.raises(Malformed) as refused:
            place.engine.plan(replace(place.role, settings=settings), place.prefix + "a" * 20)
        assert place.role.full_name in str(refused.value)


@each(*_NAMED)
async def test_a_name_is_plain_and_fits(place: Place) -> None:
    """Ours are 32 characters, which every kind keeps whole; what could be read as anything else is refused."""
    ours = place.prefix + "a" * 20
    assert len(ours) == LONGEST
    assert place.engine.plan(place.role, ours).name == ours
    for name in ("", "x'; DROP USER admin; --", 'a"b', "a b", "a\nb", "\0", "../a"):
        with pytest.raises(Malformed):
            place.engine.plan(place.role, name)


@each("postgres", "mysql", "redis", "rabbitmq")
async def test_wrong_credentials_are_found_by_the_check_and_make_nothing(place: Any) -> None:
    """Not at 3 a.m.: a finding says so; a grant is refused as at a target that is down."""
    variable, wrong = f"WRONG_{secrets.token_hex(8)}", secrets.token_urlsafe(24)
    os.environ[variable] = wrong
    said = place.engine._settings
    settings = said.model_copy(update={"password": Reference.parse(f"env:{variable}")})
    async with AsyncExitStack() as stack:
        engine: Any = await stack.enter_async_context(load(said.kind).open_engine(settings, Lent(clock=place.clock)))
        found = await engine.check([place.role], place.prefix)
        bad = [one for one in found if not one.well]
        assert bad
        assert all(wrong not in one.detail + str(one.fix) for one in found)
        handle, now = engine.plan(place.role, place.prefix + "a" * 20), place.clock.now()
        with pytest.raises(Problem) as refused:
            await engine.create(handle, place.role, now + timedelta(seconds=60), now + timedelta(seconds=10))
        assert isinstance(refused.value, TargetDown)
        assert wrong not in str(refused.value)
    assert await place.engine.names(place.prefix) == []
