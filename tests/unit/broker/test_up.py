"""What `up` puts into its state folder before anything starts."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from broker.up import Wish, prepare
from ca.runtime.places import Places
from ca.runtime.secret import Reference
from ca.spiffe.id import TrustDomain

DOMAIN = TrustDomain.parse("example.org")
WISH = Wish(trust_domain=DOMAIN, hold=(4711,))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """An empty state folder."""
    found = Places.of(tmp_path / "state")
    found.create()
    return found


def test_what_an_operator_edits_later_is_put_there(places: Places) -> None:
    """Rules for our uid and those named, the starter policies, a folder for targets; closed to others."""
    prepare(places, WISH)
    assert "unix:uid:4711" in places.rules.read_text()
    assert (places.policies / "starter.cedar").exists()
    assert (places.state / "targets").is_dir()
    for path in (places.rules, places.policies / "starter.cedar", places.state / "targets"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_what_is_there_is_never_touched(places: Places) -> None:
    """Rules that were edited, and policies of which the starter was taken away."""
    prepare(places, WISH)
    places.rules.write_text("rules: []\n")
    (places.policies / "starter.cedar").rename(places.policies / "mine.cedar")
    prepare(places, Wish(trust_domain=DOMAIN, hold=(4712,)))
    assert places.rules.read_text() == "rules: []\n"
    assert [path.name for path in places.policies.iterdir()] == ["mine.cedar"]


def test_what_a_killed_one_left_goes(places: Places) -> None:
    """Its join token; and its node's identity, which a root in memory had signed."""
    places.node_agent.mkdir(exist_ok=True)
    left = [places.node_agent / name for name in ("join-0123abcd", "identity.json", "instances.journal")]
    for path in left:
        path.write_text("{}")
    prepare(places, WISH)
    assert [path.exists() for path in left] == [False, False, True]


def test_with_a_key_the_node_s_identity_stays(places: Places) -> None:
    """Its root does, too."""
    places.node_agent.mkdir(exist_ok=True)
    identity = places.node_agent / "identity.json"
    identity.write_text("{}")
    prepare(places, Wish(trust_domain=DOMAIN, key=Reference.parse("env:KEY")))
    assert identity.exists()
