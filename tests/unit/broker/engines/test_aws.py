"""The engine aws: what it asks STS for, and what an unmodified client does with what it hands over."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from broker.engines.aws.settings import Settings
from broker.errors import NotPossible, OutcomeUnknown, TargetDown
from broker.model.role import IfDown, NewAccess
from ca.errors import Malformed, Unavailable
from ca.runtime.secret import Secret
from fakes.sts import LIFE, NAME, ROLE, answer, region
from fakes.world import role
from servers.aws_place import aws_place, by_boto3

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, Any]:
    """An IAM user's, in files."""
    (tmp_path / "id").write_text("AKIAIOSFODNN7EXAMPLE\n")
    (tmp_path / "secret").write_text("first\n")
    return {
        "authentication": "keys",
        "access_key": f"file:{tmp_path}/id",
        "secret_key": f"file:{tmp_path}/secret",
    }


async def test_an_unmodified_client_is_let_in_as_the_role() -> None:
    """boto3, against a server that judges signatures; another secret is refused."""
    async with aws_place(authentication="keys") as place:
        now = place.clock.now()
        handle = place.engine.plan(place.role, f"{place.prefix}one")
        issued = await place.engine.create(handle, place.role, now + place.role.ttl, now + timedelta(seconds=10))
        arn = await asyncio.to_thread(by_boto3, place.server, issued)
        assert arn == issued.fields["arn"] == f"arn:aws:sts::123456789012:assumed-role/deploy/{handle.name}"
        forged = type(issued)(fields=issued.fields, secret={**issued.secret, "secret_access_key": Secret("x" * 40)})
        assert await asyncio.to_thread(by_boto3, place.server, forged) is None
        assert [one for one in issued.secret.values() if one.reveal() in place.server.log] == []


async def test_a_real_refusal_is_told_by_its_code() -> None:
    """Keys that moto doesn't know."""
    async with aws_place(authentication="keys") as place:
        place.server.judges(False)
        iam = place.server.client("iam", "AKIAIOSFODNN7EXAMPLE", "anything")
        await asyncio.to_thread(iam.delete_access_key, UserName="sojourn", AccessKeyId=place.server.user.access_key)
        place.server.judges(True)
        found = await place.engine.check([place.role], place.prefix)
        assert [one.well for one in found] == [False, False]
        assert "InvalidClientTokenId" in found[0].detail


async def test_our_own_token_is_shown_and_nothing_is_signed() -> None:
    """With the audience of the settings; the session ends before what was said of it."""
    async with region(audience="aws.example") as there:
        issued = await there.create(policy=POLICY, policy_arns=["arn:aws:iam::aws:policy/ReadOnlyAccess"])
        headers, form = there.sts.asked[-1]
    assert "Authorization" not in headers
    assert form["Action"] == "AssumeRoleWithWebIdentity"
    assert form["WebIdentityToken"] == "svid-for-aws.example"
    assert (form["RoleArn"], form["RoleSessionName"]) == (ROLE, NAME)
    assert form["DurationSeconds"] == "930"
    assert json.loads(form["Policy"]) == POLICY
    assert form["PolicyArns.member.1.arn"] == "arn:aws:iam::aws:policy/ReadOnlyAccess"
    assert not {"SourceIdentity", "ExternalId", "Tags.member.1.Key"} & form.keys()
    assert set(issued.secret) == {"secret_access_key", "session_token"}


async def test_with_keys_it_says_who_and_why(keys: dict[str, Any]) -> None:
    """Tags, source identity and external id; and the signature names what it covers."""
    async with region(**keys) as there:
        there.sts.body = answer("AssumeRole", ends_at=there.clock.now() + timedelta(minutes=15)).encode()
        await there.create(tags={"team": "x y"}, source_identity=True, external_id="partner-1")
        headers, form = there.sts.asked[-1]
    assert form["Action"] == "AssumeRole"
    assert "WebIdentityToken" not in form
    assert (form["Tags.member.1.Key"], form["Tags.member.1.Value"]) == ("team", "x y")
    assert (form["SourceIdentity"], form["ExternalId"]) == (NAME, "partner-1")
    assert "SignedHeaders=content-type;host;x-amz-date," in headers["Authorization"]


async def test_rotated_keys_are_read_anew(keys: dict[str, Any], tmp_path: Path) -> None:
    """Whoever rotates them replaces the files; nothing is restarted."""
    async with region(**keys) as there:
        there.sts.body = answer("AssumeRole", ends_at=there.clock.now() + timedelta(minutes=15)).encode()
        await there.create()
        (tmp_path / "secret").write_text("second\n")
        await there.create()
        first, second = (headers["Authorization"] for headers, _ in there.sts.asked)
        assert first != second
        (tmp_path / "secret").unlink()
        with pytest.raises(TargetDown):
            await there.create()
        assert len(there.sts.asked) == 2


@pytest.mark.parametrize(("life", "seconds"), [(15, 900), (15.5, 900), (16, 930), (60, 3570), (120, 3600)])
async def test_how_long_it_is_asked_for(life: float, seconds: int) -> None:
    """Half a minute less than may be, and within AWS's bounds."""
    async with region() as there:
        await there.create(timedelta(minutes=life))
        assert there.form["DurationSeconds"] == str(seconds)


async def test_none_is_asked_for_that_would_end_too_late() -> None:
    """Nothing is sent."""
    async with region() as there:
        with pytest.raises(NotPossible):
            await there.create(timedelta(minutes=14))
        assert there.sts.asked == []


async def test_a_broker_without_an_identity_asks_for_nothing() -> None:
    """It is known that nothing was made."""

    class Nobody:
        async def token(self, audience: str) -> Secret:
            raise Unavailable(f"no identity for {audience}")

    async with region(tokens=Nobody()) as there:
        with pytest.raises(TargetDown):
            await there.create()
        assert there.sts.asked == []


async def test_a_silent_sts_is_an_unknown_outcome() -> None:
    """Another server's certificate, or nobody there."""
    async with region(endpoint="https://127.0.0.1:1") as there:
        with pytest.raises(OutcomeUnknown):
            await there.create()


async def test_the_guarantee_says_seconds() -> None:
    """At expiry, whether we are there or not; and its lease is never shorter than what AWS gives."""
    async with region() as there:
        told = there.engine.guarantee(there.role)
        assert (told.new_access, told.new_access_within) == (NewAccess.AT_EXPIRY, 960)
        assert (told.if_down, told.if_down_within) == (IfDown.TARGET_ENDS_IT, 960)
        assert there.engine.shortest(there.engine.plan(there.role, NAME)) == timedelta(minutes=16)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"role_arn": "arn:aws:iam::1:role/x"},
        {"role_arn": "arn:aws:iam::123456789012:user/x"},
        {"role_arn": ROLE, "policy": {}},
        {"role_arn": ROLE, "policy": {"Version": "2008-10-17", "Statement": []}},
        {"role_arn": ROLE, "policy": {**POLICY, "Id": "x" * 2048}},
        {"role_arn": ROLE, "policy": {**POLICY, "Id": "\u0416"}},
        {"role_arn": ROLE, "policy_arns": ["arn:aws:iam::aws:role/x"]},
        {"role_arn": ROLE, "external_id": "a"},
        {"role_arn": ROLE, "surprise": 1},
        {"role_arn": ROLE, "tags": {"team": "x"}},
        {"role_arn": ROLE, "source_identity": True},
    ],
)
async def test_roles_that_are_none(settings: dict[str, Any]) -> None:
    """The last two only keys may say."""
    async with region() as there:
        with pytest.raises(Malformed):
            there.engine.plan(role("cloud", "x", engine="aws", ttl=LIFE, settings=settings), NAME)


@pytest.mark.parametrize("minutes", [15, 61])
async def test_a_ttl_aws_does_not_keep(minutes: int) -> None:
    """Found when the role is read, not when an agent asks."""
    async with region() as there:
        wanted = role("cloud", "x", engine="aws", ttl=timedelta(minutes=minutes), settings={"role_arn": ROLE})
        with pytest.raises(Malformed, match="16m to 1h"):
            there.engine.plan(wanted, NAME)


@pytest.mark.parametrize(
    "changes",
    [
        {"region": "here"},
        {"region": "eu-central-1.evil.example/"},
        {"endpoint": "http://127.0.0.1:5000"},
        {"endpoint": "https://sts.example/path"},
        {"authentication": "keys"},
        {"access_key": "env:A", "secret_key": "env:B"},
        {"authentication": "keys", "access_key": "env:A"},
        {"authentication": "keys", "access_key": "env:A", "secret_key": "env:B", "audience": "x"},
        {"authentication": "keys", "access_key": "AKIAIOSFODNN7EXAMPLE", "secret_key": "env:B"},
        {"audience": ""},
    ],
)
def test_settings_that_are_none(changes: dict[str, Any]) -> None:
    """Each is refused."""
    with pytest.raises(ValidationError):
        Settings.model_validate_json(json.dumps({"kind": "aws", "region": "eu-central-1", **changes}))


@pytest.mark.parametrize(
    ("where", "url"),
    [
        ("eu-central-1", "https://sts.eu-central-1.amazonaws.com"),
        ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_where_a_region_answers(where: str, url: str) -> None:
    """Regional endpoints only: a session of the global one is not taken everywhere."""
    assert Settings(kind="aws", region=where).url == url


async def test_a_forged_answer_for_a_probe_is_found() -> None:
    """`target check` says what is wrong and what to look at."""
    async with region() as there:
        there.sts.body = answer(ends_at=there.clock.now() + LIFE, Arn="arn:aws:sts::1:x/y").encode()
        (found,) = await there.engine.check([there.role], "sj_aaaaaaaa_")
        assert not found.well
        assert found.fix is not None
