"""The unmodified SPIFFE client of PyPI, in a process of its own, against `sojourn up`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from journeys.processes import finished
from journeys.up import TRUST_DOMAIN, RunningUp, up

_RULES = """\
rules:
  - name: foreign
    when: ["unix:uid:{uid}"]
    spiffe_id: /foreign
    x509_ttl: 5s
"""


async def foreign(running: RunningUp) -> list[dict[str, Any]]:
    """Every line it said."""
    script = str(Path(__file__).with_name("foreign_client.py"))
    found = await finished(sys.executable, "-I", script, running.workload_api, folder=running.places.state.parent)
    assert found.code == 0, found.err
    return [json.loads(line) for line in found.out.splitlines()]


@pytest.mark.clause("EP-1", "EP-15", "WL-1")
async def test_it_fetches_validates_and_sees_a_rotation_that_is_pushed() -> None:
    """X.509- and JWT-SVIDs, bundles, a validated token, two refusals; the second context comes without a call."""
    async with up(rules=_RULES.format(uid=os.getuid())) as running:
        said = await foreign(running)
    by_name = {line["what"]: line for line in said}
    assert [line["what"] for line in said] == [
        "x509", "x509 bundle", "jwt", "validated", "refused", "refused", "first", "pushed",
    ]  # fmt: skip
    own = f"spiffe://{TRUST_DOMAIN}/foreign"
    assert {by_name[what]["id"] for what in ("x509", "jwt", "validated", "first", "pushed")} == {own}
    assert by_name["first"]["own_key"]
    assert by_name["pushed"]["own_key"]
    assert by_name["first"]["serial"] != by_name["pushed"]["serial"]
    assert by_name["x509"]["authorities"] == by_name["x509 bundle"]["authorities"] >= 1
    assert by_name["jwt"]["keys"] >= 1
    assert [(line["case"], line["error"]) for line in said if line["what"] == "refused"] == [
        ("another audience", "ValidateJwtSvidError"),
        ("another subject", "FetchJwtSvidError"),
    ]


@pytest.mark.clause("EP-13", "WL-11")
async def test_a_process_no_rule_names_gets_nothing() -> None:
    """The standard's PermissionDenied, which the client reports as its own error."""
    async with up(rules=_RULES.format(uid=os.getuid() + 1)) as running:
        (said,) = await foreign(running)
    assert said["what"] == "nothing"
    assert "identity" in said["error"].lower()
