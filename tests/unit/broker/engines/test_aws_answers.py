"""Every answer of STS that is no session: refused, nothing of it repeated, nothing handed over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.engines.aws.answers import LIMIT, NAMESPACE, SessionRefused, read
from broker.errors import OutcomeUnknown
from ca.errors import Problem, Unavailable
from fakes.clock import ManualClock
from fakes.sts import answer, refusal, region

MARK = "hunter2-hunter2"
END = ManualClock().now() + timedelta(minutes=15)
GOOD = answer(ends_at=END)
BOMB = "<!DOCTYPE r [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]>"
HOSTILE: dict[str, str] = {
    "nothing": "",
    "no XML": '{"AccessKeyId": "one"}',
    "cut off": GOOD[:-10],
    "something behind": GOOD + GOOD,
    "a document type": BOMB + GOOD.replace("wJalrXUtnFEMI", "&b;"),
    "a document type elsewhere": "<!DOCTYPE r SYSTEM 'file:///etc/passwd'>" + GOOD,
    "an entity": GOOD.replace("wJalrXUtnFEMI", "&one;"),
    "an instruction": "<?php one ?>" + GOOD,
    "another namespace": GOOD.replace(NAMESPACE, "https://sts.amazonaws.com/doc/2099-01-01/"),
    "no namespace": GOOD.replace(f' xmlns="{NAMESPACE}"', ""),
    "attributes": GOOD.replace("<Credentials>", "<Credentials one='1'>"),
    "another action": GOOD.replace("AssumeRoleWithWebIdentity", "AssumeRoleWithSAML"),
    "a key twice": GOOD.replace("<AccessKeyId>", "<AccessKeyId>ASIAONEONEONEONEONE0</AccessKeyId><AccessKeyId>"),
    "too deep": "".join(f"<a{at} xmlns='{NAMESPACE}'>" for at in range(40)),
    "too many": f"<r xmlns='{NAMESPACE}'>" + "".join(f"<a{at}/>" for at in range(400)) + "</r>",
    "too much": GOOD.replace("wJalrXUtnFEMI", "x" * LIMIT),
    "no access key": answer(ends_at=END, AccessKeyId=None),
    "an access key that is none": answer(ends_at=END, AccessKeyId="one two"),
    "no secret": answer(ends_at=END, SecretAccessKey=None),
    "an empty secret": answer(ends_at=END, SecretAccessKey=""),
    "a secret with a line break": answer(ends_at=END, SecretAccessKey="one\ntwo"),
    "no token": answer(ends_at=END, SessionToken=None),
    "a token inside a token": answer(ends_at=END, SessionToken="<one>two</one>"),
    "no end": answer(ends_at=END, Expiration=None),
    "an end that is no time": answer(ends_at=END, Expiration="2026-13-45T99:00:00Z"),
    "an end in another zone": answer(ends_at=END, Expiration="2026-01-01T00:00:00+09:00"),
    "an end that is too late": answer(ends_at=END + timedelta(hours=1)),
    "an end that is past": answer(ends_at=END - timedelta(hours=1)),
    "nobody's": answer(ends_at=END, Arn=None),
    "another role's": answer(ends_at=END, Arn="arn:aws:sts::123456789012:assumed-role/admin/sj_aaaaaaaa_bbbb"),
    "another account's": answer(ends_at=END, Arn="arn:aws:sts::999999999999:assumed-role/deploy/sj_aaaaaaaa_bbbb"),
    "under another name": answer(ends_at=END, Arn="arn:aws:sts::123456789012:assumed-role/deploy/sj_aaaaaaaa_cccc"),
}


async def test_the_good_one_is_taken() -> None:
    """Without this the others could not fail."""
    async with region() as there:
        issued = await there.create()
    assert issued.fields["access_key_id"] == "ASIAIOSFODNN7EXAMPLE"
    assert issued.secret["secret_access_key"].reveal() == "wJalrXUtnFEMI/K7MDENG"
    assert issued.secret["session_token"].reveal() == "FQoGZXIvYXdzEBYaD"
    assert issued.fields["expires_at"] == END.isoformat()


@pytest.mark.parametrize("what", HOSTILE)
async def test_an_answer_that_is_none_is_refused(what: str) -> None:
    """And nothing of it is repeated."""
    async with region() as there:
        there.sts.body = HOSTILE[what].encode()
        with pytest.raises(Unavailable) as refused:
            await there.create()
    text = f"{refused.value!r} {refused.value.__cause__!r}"
    assert "wJalr" not in text
    assert "one" not in text.replace("'", " ").split()


def test_bytes_in_another_encoding_are_refused() -> None:
    """A document may not choose how it is read."""
    with pytest.raises(Unavailable):
        read(b"<?xml version='1.0' encoding='UTF-16'?>" + GOOD.encode("utf-16"))


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (403, refusal("AccessDenied", MARK), SessionRefused),
        (400, refusal("ExpiredTokenException", MARK), SessionRefused),
        (403, refusal(f"&lt;{MARK}&gt;"), SessionRefused),
        (403, MARK, SessionRefused),
        (302, "", SessionRefused),
        (400, refusal("Throttling", MARK), Unavailable),
        (429, MARK, Unavailable),
        (500, MARK, OutcomeUnknown),
        (503, refusal("ServiceUnavailable", MARK), OutcomeUnknown),
    ],
)
async def test_a_refusal_says_its_code_and_nothing_else(status: int, body: str, error: type[Problem]) -> None:
    """A message may hold what we sent."""
    async with region() as there:
        there.sts.body, there.sts.status = body.encode(), status
        with pytest.raises(error) as refused:
            await there.create()
    assert MARK not in f"{refused.value!r} {refused.value.__cause__!r}"
    if "AccessDenied" in body:
        assert "`AccessDenied`" in str(refused.value)
