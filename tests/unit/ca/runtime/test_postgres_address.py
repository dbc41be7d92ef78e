"""One line names a store on PostgreSQL; no secret stands in it, and nothing is guessed."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from ca.errors import Malformed
from ca.runtime.postgres_address import parse


def test_every_part_is_read() -> None:
    """Several hosts, each with its port."""
    address = parse("postgresql://me%40x@db-1,db-2:6432,[::1]:7/store?password=env:X&sslmode=require")
    assert address.hosts == [("db-1", 5432), ("db-2", 6432), ("::1", 7)]
    assert (address.user, address.database, str(address.password)) == ("me@x", "store", "env:X")
    assert str(address) == "store@db-1:5432,db-2:6432,::1:7"


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://u@127.0.0.1/d", "disable"),
        ("postgresql://u@[::1]/d", "disable"),
        ("postgresql:///d?user=u&host=/run/postgresql", "disable"),
        ("postgresql://u@localhost/d", "verify"),
        ("postgresql://u@127.0.0.1,db/d", "verify"),
        ("postgresql://u@db/d?sslmode=require", "require"),
    ],
)
def test_a_server_is_verified_unless_it_is_here_or_somebody_says_otherwise(url: str, mode: str) -> None:
    """A name, `localhost` too, is whatever a resolver makes of it."""
    address = parse(url)
    assert address.mode == mode
    context = address.options()["ssl"]
    if mode == "disable":
        assert context is False
    else:
        assert isinstance(context, ssl.SSLContext)
        assert (context.verify_mode is ssl.CERT_REQUIRED, context.check_hostname) == ((mode == "verify",) * 2)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@db/d",
        "postgresql://u:@db/d",
        "postgresql://u@db/d?password=hunter2",
        "postgresql://u@db/d?password=file:hunter2",
        "postgresql://u@db/d?sslpassword=hunter2",
        "postgresql://u@db/d?sslmode=disable",
        "postgresql://u@db/d?sslmode=prefer",
        "postgresql://u@db/d?sslrootcert=ca.pem",
        "postgresql://u@db/d?sslcert=/a",
        "postgresql://u@db/d?options=-c%20fsync=off",
        "postgresql://u@db/",
        "postgresql://db/d",
        "postgresql://u@db:0/d",
        "postgresql://u@db:port/d",
        "postgresql://u@/d",
        "postgresql://u@db/d/e",
        "postgresql://u@db/d#x",
        "postgresql://u@[::1/d",
        "postgresql://u@db/d?password",
    ],
)
def test_what_is_wrong_is_refused_and_no_password_is_repeated(url: str) -> None:
    """Whoever wrote one there by mistake must not find it in a log."""
    with pytest.raises(Malformed) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_password_is_read_anew_for_each_connection(tmp_path: Path) -> None:
    """It may be changed while we run."""
    file = tmp_path / "secret"
    address = parse(f"postgresql://u@127.0.0.1/d?password=file:{file}")
    for text in ("one", "two"):
        file.write_text(f"{text}\n")
        assert address.options()["password"] == text
    file.unlink()
    with pytest.raises(Malformed, match="can't read"):
        address.options()


def test_certificates_that_can_t_be_read_are_named(tmp_path: Path) -> None:
    """At the start, not at the first reconnect."""
    with pytest.raises(Malformed, match="certificates"):
        parse(f"postgresql://u@db/d?sslrootcert={tmp_path}/none.pem").options()
