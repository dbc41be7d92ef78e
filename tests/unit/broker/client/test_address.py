"""Where the broker is: flag, environment, the running `up`; and what is not believed."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from attestor.client.errors import Unreachable
from broker.client.address import (
    check_url,
    find_admin,
    find_broker,
    find_workload_api,
    places_of,
    running,
)
from ca.errors import Denied, Malformed
from ca.runtime.places import Places

UP = {
    "pid": 7,
    "started_at": "2026-11-23T12:00:00+00:00",
    "trust_domain": "example.org",
    "broker": "https://127.0.0.1:4711",
    "workload_api": "unix:///run/workload.sock",
    "admin": {"server": "/a/server.sock", "node_agent": "/a/node.sock", "broker": "/a/broker.sock"},
    "state": "/var/lib/sojourn",
}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Places of their own, made."""
    found = Places.of(tmp_path / "s")
    found.create()
    return found


def write(places: Places, value: object, mode: int = 0o600) -> None:
    """What `up` would leave."""
    places.running.write_text(json.dumps(value))
    places.running.chmod(mode)


def test_the_running_one_is_found(places: Places) -> None:
    """Every address it says."""
    write(places, UP)
    found = running(places)
    assert (found.pid, found.trust_domain, found.state) == (7, "example.org", Path("/var/lib/sojourn"))
    assert find_broker(None, places, {}) == "https://127.0.0.1:4711"
    assert find_admin(None, places, {}) == Path("/a/broker.sock")
    assert find_workload_api(None, places, {}) == "unix:///run/workload.sock"


def test_a_flag_goes_before_the_environment_and_that_before_what_runs(places: Places) -> None:
    """The nearest word counts."""
    write(places, UP)
    said = {
        "SOJOURN_BROKER": "https://b:1",
        "SOJOURN_BROKER_ADMIN": "/b.sock",
        "SPIFFE_ENDPOINT_SOCKET": "unix:///b",
    }
    assert find_broker("https://a:1/", places, said) == "https://a:1"
    assert find_broker(None, places, said) == "https://b:1"
    assert find_broker("https://a:1/, https://b:2,https://a:1", places, said) == "https://a:1,https://b:2"
    for bad in ("https://a:1,", "https://a:1;https://b:2", "https://a:1,http://b:2"):
        with pytest.raises(Malformed):
            find_broker(bad, places, said)
    assert find_admin(Path("/a.sock"), places, said) == Path("/a.sock")
    assert find_admin(None, places, said) == Path("/b.sock")
    assert find_workload_api("unix:///a", places, said) == "unix:///a"
    assert find_workload_api(None, places, said) == "unix:///b"
    assert find_workload_api("/run/w.sock", places, said) == "unix:///run/w.sock"


def test_nothing_running_says_what_to_do(places: Places) -> None:
    """Exit code 3, one sentence."""
    for find in (running, lambda at: find_broker(None, at, {}), lambda at: find_admin(None, at, {})):
        with pytest.raises(Unreachable, match="sojourn up"):
            find(places)


def test_a_broker_started_alone_is_found_at_its_usual_socket(places: Places) -> None:
    """Without the file of an `up`."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(places.broker_admin))
        assert find_admin(None, places, {}) == places.broker_admin


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_others_may_write_is_not_believed(places: Places, mode: int) -> None:
    """Whoever writes it chooses where secrets are asked for."""
    write(places, UP, mode)
    with pytest.raises(Denied, match="not believed"):
        running(places)


def test_a_link_is_not_followed(places: Places, tmp_path: Path) -> None:
    """It could lead to somebody else's file."""
    (tmp_path / "other").write_text(json.dumps(UP))
    places.running.symlink_to(tmp_path / "other")
    with pytest.raises(Denied):
        running(places)


@pytest.mark.parametrize(
    "change",
    [
        {"pid": "x"},
        {"admin": {}},
        {"started_at": "2026-11-23T12:00:00"},
        {"broker": "http://127.0.0.1:1"},
        {"state": 1},
    ],
)
def test_a_file_of_another_form_is_refused(places: Places, change: dict[str, object]) -> None:
    """Half of it is not used."""
    write(places, {**UP, **change})
    with pytest.raises(Malformed, match="not what `sojourn up` writes"):
        running(places)


@pytest.mark.parametrize("text", ["http://a:1", "https://a", "a:1", "https://a:x", "https://u:p@a:1", "https://a:1/x"])
def test_what_is_no_address_is_refused_without_being_repeated(text: str) -> None:
    """It may hold a password."""
    with pytest.raises(Malformed) as caught:
        check_url(text)
    assert "u:p" not in str(caught.value)


def test_a_state_folder_may_be_named(tmp_path: Path) -> None:
    """By a flag or by the environment, as for `sojourn up --state`."""
    assert places_of(tmp_path).state == tmp_path
    assert places_of(None, {"SOJOURN_STATE": str(tmp_path)}).running == tmp_path / "run" / "admin" / "up.json"
    own = places_of(None, {"XDG_STATE_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)})
    assert own.state == tmp_path / "sojourn"
    assert os.fspath(own.running).startswith(str(tmp_path))
