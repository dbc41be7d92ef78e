"""PEM files kept fresh."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from attestor.client.files import SvidFiles
from ca.errors import Malformed, Unavailable
from fakes.disk import full_disk
from fakes.pki import TestAuthority

AUTHORITY = TestAuthority()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the files go."""
    return tmp_path / "svid"


def usable(state: Path) -> bool:
    """Whether OpenSSL takes certificate and key as one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(state / "svid.pem", state / "key.pem")
    context.load_verify_locations(state / "bundle.pem")
    return True


def test_chain_key_and_bundle_belong_together(folder: Path) -> None:
    """And OpenSSL reads them."""
    files = SvidFiles(folder)
    files.write(AUTHORITY.leaf(), AUTHORITY.bundle())
    assert usable(files.current)


def test_nobody_else_reads_the_key(folder: Path) -> None:
    """Mode 0600 in folders of mode 0700."""
    files = SvidFiles(folder)
    state = files.write(AUTHORITY.leaf(), AUTHORITY.bundle())
    assert {path.stat().st_mode & 0o777 for path in state.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == state.stat().st_mode & 0o777 == 0o700


def test_a_state_is_swapped_whole_and_the_one_before_is_kept(folder: Path) -> None:
    """A reader that has the folder of the old state open finishes reading it."""
    files = SvidFiles(folder)
    states = [files.write(AUTHORITY.leaf(), AUTHORITY.bundle()) for _ in range(3)]
    assert [state.exists() for state in states] == [False, True, True]
    assert usable(states[1])
    assert files.current.resolve() == states[2]
    assert len(list(folder.iterdir())) == 3


def test_what_a_killed_writer_left_is_removed(folder: Path) -> None:
    """A half-written state or link is no state."""
    files = SvidFiles(folder)
    (folder / ".svid-half").mkdir()
    (folder / ".svid-link-half").symlink_to(".svid-half")
    files.write(AUTHORITY.leaf(), AUTHORITY.bundle())
    assert not (folder / ".svid-half").exists()
    assert not (folder / ".svid-link-half").is_symlink()


def test_a_withdrawn_identity_leaves_no_key(folder: Path) -> None:
    """The link goes first."""
    files = SvidFiles(folder)
    files.write(AUTHORITY.leaf(), AUTHORITY.bundle())
    files.withdraw()
    assert list(folder.iterdir()) == []


def test_a_folder_others_may_write_in_is_refused(tmp_path: Path) -> None:
    """They could swap the link."""
    tmp_path.chmod(0o777)
    with pytest.raises(Malformed, match="writable by nobody else"):
        SvidFiles(tmp_path)


def test_a_full_disk_keeps_the_old_state(folder: Path, tmp_path: Path) -> None:
    """Nothing is swapped that was not written whole, and nothing of the new key stays."""
    files = SvidFiles(folder)
    before = files.write(AUTHORITY.leaf(), AUTHORITY.bundle())
    with full_disk(before / "key.pem", 10), pytest.raises(Unavailable, match="can't write the SVID"):
        files.write(AUTHORITY.leaf(), AUTHORITY.bundle())
    assert files.current.resolve() == before
    assert usable(files.current)
    assert sorted(os.listdir(folder)) == sorted(["current", before.name])  # noqa: PTH208
