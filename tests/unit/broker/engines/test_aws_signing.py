"""Signature Version 4: AWS's own published vectors, and an unmodified client's signer beside ours."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from broker.engines.aws.signing import Keys, canonical, signed, signing_key
from ca.runtime.secret import Secret

SECRET = Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
KEYS = Keys(access_key="AKIDEXAMPLE", secret_key=SECRET)
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
FORM = "application/x-www-form-urlencoded"
VECTORS = {
    "post-vanilla": ({}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    "post-x-www-form-urlencoded": (
        {"Content-Type": FORM},
        b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_aws(name: str) -> None:
    """As its test suite publishes them."""
    more, body, signature = VECTORS[name]
    headers = {"Host": "example.amazonaws.com", **more}
    found = signed(KEYS, headers, body, region="us-east-1", service="service", now=NOW)["authorization"]
    names = "content-type;host;x-amz-date" if more else "host;x-amz-date"
    scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    assert found == f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"


def test_the_key_of_a_day() -> None:
    """The example of AWS's guide."""
    key = signing_key(SECRET, "20150830", "us-east-1", "iam")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"


@pytest.mark.parametrize("session", [None, "a/session+token=="])
@pytest.mark.parametrize(
    "fields", [{}, {"Action": "AssumeRole", "Policy": '{"Ä": "a b+c&d"}', "Tags.member.1.Key": "ü"}]
)
def test_a_foreign_signer_says_the_same(session: str | None, fields: dict[str, str]) -> None:
    """The own one of botocore, over the same request."""
    body = urlencode(fields).encode()
    headers = {"host": "sts.eu-central-1.amazonaws.com:8443", "content-type": FORM}
    keys = Keys(access_key="AKIDEXAMPLE", secret_key=SECRET, session=None if session is None else Secret(session))
    ours = signed(keys, headers, body, region="eu-central-1", service="sts", now=NOW)
    request = AWSRequest(method="POST", url="https://sts.eu-central-1.amazonaws.com:8443/", data=body, headers=ours)
    del request.headers["authorization"]
    request.context["timestamp"] = ours["x-amz-date"]
    theirs = SigV4Auth(Credentials("AKIDEXAMPLE", SECRET.reveal(), session), "sts", "eu-central-1")
    text = theirs.canonical_request(request)
    assert text == canonical({name: one for name, one in ours.items() if name != "authorization"}, body)
    signature = theirs.signature(theirs.string_to_sign(request, text), request)
    assert ours["authorization"].endswith(f"Signature={signature}")


def test_the_secret_is_not_in_what_is_sent() -> None:
    """Nor in a repr."""
    found = signed(KEYS, {"host": "h"}, b"", region="r", service="s", now=NOW)
    assert SECRET.reveal() not in repr(found) + repr(KEYS)
