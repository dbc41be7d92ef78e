"""`doctor`: findings, each of which says what is well, or what to do."""

from __future__ import annotations

from pathlib import Path

from broker import doctor
from ca.runtime.places import Places
from fakes.clock import ManualClock


def test_each_finding_says_what_it_saw_and_what_to_do(tmp_path: Path) -> None:
    """No check raises, none is mute, names are unique."""
    findings = doctor.examine(Places.of(tmp_path / "state"), ManualClock())
    assert len({found.name for found in findings}) == len(findings) >= 9
    assert all(found.detail for found in findings)
    assert all(found.fix for found in findings if not found.well)


def test_a_stepped_clock_is_not_well(tmp_path: Path) -> None:
    """It says to wait a minute."""
    clock = ManualClock()
    clock.step_wall()
    (found,) = [one for one in doctor.examine(Places.of(tmp_path / "s"), clock) if one.name == "clock"]
    assert not found.well


def test_a_state_folder_open_to_others_is_not_well(tmp_path: Path) -> None:
    """It names the folder and the command."""
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    findings = doctor.examine(Places.of(state), ManualClock())
    (found,) = [one for one in findings if one.name == "state folder"]
    assert not found.well
    assert f"chmod 700 {state}" in str(found.fix)
