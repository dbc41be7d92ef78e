"""The engine kubernetes: what a removed Secret ends, when that is called done, and every answer that is no token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from broker.engines.kubernetes import RoleSettings, Settings
from broker.engines.kubernetes.anchor import object_name
from broker.engines.kubernetes.token import TokenRefused
from broker.engines.protocol import Issued
from broker.errors import NotPossible, NotYet, OutcomeUnknown, TargetDown
from broker.model.lease import Handle
from broker.model.role import IfDown, NewAccess
from ca.errors import Conflict, Denied, Malformed, Problem, Unavailable
from fakes.clock import ManualClock
from fakes.world import role
from servers.kubernetes_place import ACCOUNT, NAMESPACE, KubernetesPlace, kubernetes_place

MARK = "hunter2-hunter2"


@pytest.fixture
async def place() -> AsyncIterator[KubernetesPlace]:
    """A cluster whose API server remembers for ten seconds, at a time of our own."""
    clock = ManualClock()
    async with kubernetes_place(clock=clock, remembered="10s") as found:
        found.cluster.remembers = timedelta(seconds=10)
        yield found


def named(place: KubernetesPlace, name: str = "one") -> Handle:
    """A principal of this place."""
    handle: Handle = place.engine.plan(place.role, place.prefix + name)
    return handle


async def made(place: KubernetesPlace, name: str = "one", minutes: float = 10) -> Issued:
    """A token."""
    now = place.clock.now()
    until, deadline = now + timedelta(minutes=minutes), now + timedelta(seconds=10)
    issued: Issued = await place.engine.create(named(place, name), place.role, until, deadline)
    return issued


async def test_an_ending_is_done_when_nobody_remembers(place: KubernetesPlace) -> None:
    """A server that saw the token goes on taking it for ten seconds; until then the ending is not called done."""
    issued = await made(place)
    assert await place.login(issued) is not None
    with pytest.raises(NotYet, match="remember"):
        await place.engine.end_access(named(place))
    assert await place.login(issued) is not None
    with pytest.raises(NotYet):
        await place.engine.end_access(named(place))
    await place.clock.advance(10)  # type: ignore[attr-defined]
    await place.engine.end_access(named(place))
    assert await place.login(issued) is None
    await place.engine.clean_up(named(place))
    assert place.cluster.secrets == {}


async def test_a_clock_that_was_set_back_delays_no_ending(place: KubernetesPlace) -> None:
    """The moment of its removal, noted there, would come a second time in an hour: it is noted anew."""
    issued = await made(place)
    with pytest.raises(NotYet):
        await place.engine.end_access(named(place))
    clock: Any = place.clock
    clock.step_wall(timedelta(hours=-1))
    clock.restart()
    for _ in range(2):
        with pytest.raises(NotYet):
            await place.engine.end_access(named(place))
        await clock.advance(5)
    await place.engine.end_access(named(place))
    assert await place.login(issued) is None


async def test_the_name_stays_taken_until_it_is_cleared_away(place: KubernetesPlace) -> None:
    """A create that was frozen on its way is refused, also after the ending."""
    await made(place)
    with pytest.raises(NotYet):
        await place.engine.end_access(named(place))
    with pytest.raises(Conflict):
        await made(place)


async def test_a_request_for_a_token_that_comes_late_is_refused(place: KubernetesPlace) -> None:
    """The Secret it names is gone, or another one."""
    handle, said = named(place), RoleSettings(service_account=ACCOUNT)
    anchor = await place.engine._anchors.make(handle.name)
    await place.engine.occupy(handle)
    with pytest.raises(NotYet):
        await place.engine.end_access(handle)
    with pytest.raises(Problem):
        await place.engine._bound(handle, said, anchor, place.clock.now())


async def test_a_secret_holds_nothing_and_says_whose_it_is(place: KubernetesPlace) -> None:
    """Neither the token nor a part of it rests in the cluster."""
    issued = await made(place)
    ((key, secret),) = place.cluster.secrets.items()
    assert key == (NAMESPACE, object_name(place.prefix + "one"))
    assert "data" not in secret
    assert secret["metadata"]["labels"]["sojourn-installation"] == place.prefix.split("_")[1]
    assert issued.secret["token"].reveal().split(".")[2] not in json.dumps(secret)


async def test_a_foreign_secret_of_our_name_is_not_touched(place: KubernetesPlace) -> None:
    """Whoever put it there; it is said so, and tried again."""
    name = object_name(place.prefix + "one")
    place.cluster.secrets[NAMESPACE, name] = {"metadata": {"name": name, "uid": "theirs", "resourceVersion": "1"}}
    for verb in (place.engine.end_access, place.engine.clean_up):
        with pytest.raises(Conflict, match="not one of ours"):
            await verb(named(place))
    assert (NAMESPACE, name) in place.cluster.secrets
    assert await place.engine.names(place.prefix) == []


async def test_many_pages_are_one_list(place: KubernetesPlace) -> None:
    """The API gives a few at a time."""
    for number in range(12):
        await made(place, f"n{number:02}")
    assert len(await place.engine.names(place.prefix)) == 12
    assert len(await place.engine.names("sj_")) == 12


async def test_a_finalizer_holds_an_ending_up(place: KubernetesPlace) -> None:
    """Gone is what is looked for, not what was asked for."""
    await made(place)
    place.cluster.finalizers = True
    with pytest.raises(NotYet, match="still there"):
        await place.engine.end_access(named(place))


@pytest.mark.parametrize("status", [500, 1500])
async def test_a_secret_nobody_heard_of_is_in_doubt_and_ended(place: KubernetesPlace, status: int) -> None:
    """Done or not: the name is occupied, then ended, then given back."""
    place.cluster.failing["POST"] = status
    with pytest.raises(OutcomeUnknown):
        await made(place)
    await place.engine.occupy(named(place))
    place.cluster.failing["DELETE"] = 1500
    for _ in range(3):
        try:
            await place.engine.end_access(named(place))
        except (NotYet, OutcomeUnknown):
            await place.clock.advance(10)  # type: ignore[attr-defined]
    await place.engine.end_access(named(place))
    place.cluster.failing.clear()
    await place.engine.clean_up(named(place))
    assert place.cluster.secrets == {}


@pytest.mark.parametrize("status", [500, 1500])
async def test_a_token_that_never_came_ends_with_its_secret(place: KubernetesPlace, status: int) -> None:
    """Nobody was given it; when the Secret can't be removed either, the lease is in doubt."""
    place.cluster.failing["TOKEN"] = status
    with pytest.raises(OutcomeUnknown):
        await made(place)
    assert place.cluster.secrets == {}
    place.cluster.failing |= {"TOKEN": 403, "DELETE": 500}
    with pytest.raises(OutcomeUnknown, match="still there"):
        await made(place)
    assert await place.engine.names(place.prefix) == [place.prefix + "one"]


@pytest.mark.parametrize(("status", "error"), [(403, Denied), (401, Problem), (500, TargetDown)])
async def test_a_list_that_can_t_be_had_is_a_target_that_is_down(
    place: KubernetesPlace, status: int, error: type[Problem]
) -> None:
    """No list is not an empty one."""
    place.cluster.failing["GET"] = status
    with pytest.raises(TargetDown):
        await place.engine.names(place.prefix)
    place.cluster.failing["GET"] = status
    with pytest.raises(error):
        await place.engine.end_access(named(place))


async def test_an_account_that_is_not_there(place: KubernetesPlace) -> None:
    """Refused, and nothing is left."""
    place.cluster.accounts.clear()
    with pytest.raises(TokenRefused, match=ACCOUNT):
        await made(place)
    assert place.cluster.secrets == {}


CLAIMS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "unbound": lambda claims: {**claims, "kubernetes.io": {"namespace": NAMESPACE}},
    "bound to nothing": lambda claims: {**claims, "kubernetes.io": None},
    "bound to another": lambda claims: {**claims, "kubernetes.io": {"secret": {"name": "x", "uid": "y"}}},
    "bound to a pod": lambda claims: {**claims, "kubernetes.io": {"pod": claims["kubernetes.io"]["secret"]}},
    "another account": lambda claims: {**claims, "sub": f"system:serviceaccount:{NAMESPACE}:admin"},
    "too long": lambda claims: {**claims, "exp": claims["exp"] + 3600},
    "no end": lambda claims: {**claims, "exp": None},
    "ended": lambda claims: {**claims, "exp": 1},
    "an end that is a text": lambda claims: {**claims, "exp": "tomorrow"},
}
ANSWERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no status": lambda answer: {**answer, "status": None},
    "no token": lambda answer: {**answer, "status": {}},
    "no JWT": lambda answer: {**answer, "status": {"token": MARK}},
    "no JSON inside": lambda answer: {**answer, "status": {"token": f"a.{MARK}.b"}},
    "a line break": lambda answer: {**answer, "status": {"token": answer["status"]["token"] + "\r\nX: y"}},
    "too long": lambda answer: {**answer, "status": {"token": "a." + "b" * 20000 + ".c"}},
    "a list": lambda answer: [answer],
}


@pytest.mark.parametrize("what", [*CLAIMS, *(f"answer: {one}" for one in ANSWERS)])
async def test_a_token_that_is_not_as_asked_is_given_to_nobody(place: KubernetesPlace, what: str) -> None:
    """One that nothing would end above all; and nothing of it is repeated."""
    place.cluster.claims = CLAIMS.get(what, place.cluster.claims)
    place.cluster.token_answer = ANSWERS.get(what.removeprefix("answer: "), place.cluster.token_answer)
    if what in CLAIMS:
        place.cluster.token_answer = lambda answer: answer
    with pytest.raises(Unavailable) as refused:
        await made(place)
    assert MARK not in f"{refused.value!r} {refused.value.__cause__!r}"
    assert place.cluster.secrets == {}


async def test_other_audiences_need_an_operator_s_word() -> None:
    """And are then what the token is for, no others."""
    async with kubernetes_place(audiences=["vault"], reviewed=True) as place:
        issued = await made(place)
        assert await place.login(issued) is not None
        place.cluster.claims = lambda claims: {**claims, "aud": ["vault", "everybody"]}
        with pytest.raises(Unavailable, match="audiences"):
            await made(place, "two")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"service_account": "../admin"},
        {"service_account": "UPPER"},
        {"service_account": ACCOUNT, "audiences": ["vault"]},
        {"service_account": ACCOUNT, "reviewed": True},
        {"service_account": ACCOUNT, "surprise": 1},
    ],
)
async def test_roles_that_are_none(place: KubernetesPlace, settings: dict[str, Any]) -> None:
    """Above all one whose tokens could not be ended."""
    with pytest.raises(Malformed):
        place.engine.plan(role("cluster", "x", engine="kubernetes", settings=settings), place.prefix + "one")


@pytest.mark.parametrize("changes", [{"namespace": "a/b"}, {"namespace": ""}, {"remembered": "3m"}, {"other": 1}])
def test_settings_that_are_none(changes: dict[str, Any]) -> None:
    """Each is refused."""
    with pytest.raises(ValueError, match="validation error"):
        Settings.model_validate_json(json.dumps({"kind": "kubernetes", "namespace": "shop", **changes}))


@pytest.mark.parametrize("name", ["sj_a", "sj_A_b", "sj_a_../b", "x_a_b", "sj_a_b-c", "sj_a_" + "b" * 60])
def test_names_that_are_none(name: str) -> None:
    """A name is a part of a path."""
    with pytest.raises(Malformed):
        object_name(name)


async def test_the_guarantee_says_seconds(place: KubernetesPlace) -> None:
    """At once means when nobody remembers; a short `ttl` is ten minutes if we are down."""
    told = place.engine.guarantee(place.role)
    assert (told.new_access, told.new_access_within) == (NewAccess.AT_ONCE, 12)
    assert (told.if_down, told.if_down_within) == (IfDown.TARGET_ENDS_IT, 610)
    with pytest.raises(NotPossible):
        await place.engine.replace(named(place), place.role, place.clock.now(), place.clock.now())


async def test_a_right_that_is_missing_is_named(place: KubernetesPlace) -> None:
    """And no probe is made where an ending would fail."""
    place.cluster.forbidden = {("delete", "secrets"), ("create", "serviceaccounts/token")}
    found = [one for one in await place.engine.check([place.role], place.prefix) if not one.well]
    assert [one.name for one in found] == ["delete secrets", f"create serviceaccounts/token of {ACCOUNT}"]
    assert all(one.fix for one in found)
    assert not any(method == "POST" and path.endswith("/secrets") for method, path in place.cluster.requests)


@pytest.mark.parametrize("may_review", [True, False])
async def test_a_check_has_the_ended_token_refused(place: KubernetesPlace, may_review: bool) -> None:  # noqa: FBT001
    """Where we may ask; the waiting of an ending is not waited for, since nobody saw the probe."""
    if not may_review:
        place.cluster.forbidden = {("create", "tokenreviews")}
    found = await place.engine.check([place.role], place.prefix)
    assert [one for one in found if not one.well] == []
    assert ("refused by TokenReview" in found[-1].detail) is may_review
    assert place.cluster.secrets == {}


async def test_a_cluster_that_does_not_honour_the_binding_is_found(place: KubernetesPlace) -> None:
    """By its own TokenReview."""
    place.cluster.review = lambda status: {**status, "authenticated": True}
    found = await place.engine.check([place.role], place.prefix)
    assert [one.detail for one in found if not one.well] == ["it was taken after what it is bound to was gone"]


@pytest.mark.parametrize("notes", [None, {}, {"sojourn-claimed-by": 7}, {"sojourn-claimed-by": "elsewher"}])
async def test_a_claim_that_is_not_ours_is_refused(place: KubernetesPlace, notes: Any) -> None:
    """Another's, or one that can't be read."""
    meta = {"name": "sj-claim", "annotations": notes, "uid": "u", "resourceVersion": "1"}
    place.cluster.secrets[NAMESPACE, "sj-claim"] = {"metadata": meta}
    with pytest.raises(Conflict, match="claimed"):
        await place.engine.claim("aaaaaaaa", "one")
    with pytest.raises(Conflict, match="claimed"):
        await place.engine.adopt("aaaaaaaa", "one")
