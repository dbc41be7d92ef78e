"""Places: where things live, and that only their owner gets in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ca.errors import Conflict, Denied, Malformed
from ca.runtime.places import LONGEST_SOCKET, Places, config_home, make, runtime_home, state_home


def test_an_xdg_folder_of_ours_is_used(tmp_path: Path) -> None:
    """Whether it exists yet or not."""
    named = {"XDG_STATE_HOME": f"{tmp_path}/s", "XDG_CONFIG_HOME": f"{tmp_path}/c", "XDG_RUNTIME_DIR": str(tmp_path)}
    assert state_home(named) == tmp_path / "s" / "sojourn"
    assert config_home(named) == tmp_path / "c" / "sojourn"
    assert runtime_home(named) == tmp_path / "sojourn"


@pytest.mark.parametrize("value", ["", "relative/folder", "~/state"])
def test_an_xdg_value_that_is_not_absolute_is_ignored(value: str) -> None:
    """As the XDG specification wants it."""
    assert state_home({"XDG_STATE_HOME": value}) == state_home({})


def test_without_a_word_there_is_a_place_of_this_users_own() -> None:
    """The system's for root, the home's for everybody else."""
    expected = Path("/var/lib/sojourn") if os.geteuid() == 0 else Path.home() / ".local/state/sojourn"
    assert state_home({}) == expected
    assert all(home({}).is_absolute() for home in (state_home, runtime_home, config_home))


def test_every_name_lies_inside(tmp_path: Path) -> None:
    """State in one folder, sockets in another when asked for."""
    places = Places.of(tmp_path / "s", tmp_path / "r")
    assert all(path.is_relative_to(tmp_path / "r") for path in (*places.sockets, places.running))
    inside = (places.server_database, places.broker_database, places.keys, places.node_agent, places.policies)
    assert all(path.is_relative_to(tmp_path / "s") for path in inside)
    assert len(set(places.sockets)) == 4


def test_folders_are_private_and_may_be_made_twice(tmp_path: Path) -> None:
    """0700, but the runtime folder may be passed through on the way to the Workload API."""
    places = Places.of(tmp_path / "s", tmp_path / "r")
    places.create()
    places.create()

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert [mode(path) for path in (places.state, places.keys, places.node_agent, places.admin)] == [0o700] * 4
    assert mode(places.runtime) == 0o711


def test_a_folder_others_may_enter_is_refused(tmp_path: Path) -> None:
    """Keys are not put where somebody else may look."""
    open_folder = tmp_path / "s"
    open_folder.mkdir()
    open_folder.chmod(0o750)
    with pytest.raises(Denied, match="expected mode 0700, found 0750"):
        Places.of(open_folder, tmp_path / "r").create()


def test_a_link_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """Whoever put it there decides where it leads."""
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(Conflict, match="found a link or a file"):
        make(tmp_path / "link")
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    with pytest.raises(Conflict):
        make(tmp_path / "dangling")


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """With a sentence."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Conflict):
        make(tmp_path / "file")
    with pytest.raises(Conflict):
        make(tmp_path / "file" / "below")


def test_a_socket_name_too_long_for_the_kernel_is_refused_at_once(tmp_path: Path) -> None:
    """Not when the listener is opened."""
    with pytest.raises(Malformed, match=str(LONGEST_SOCKET)):
        Places.of(tmp_path / ("x" * LONGEST_SOCKET))
