"""A real PKCS#11 token in software: SoftHSM, one token for the session, swept clean for each test.

The library reads its settings once in a process, so there is one folder for all of it; what a test leaves on the token
is destroyed before the next one.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ca.keys.protocol import Place
from ca.runtime.secret import Reference

MODULES = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
    Path("/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"),
)
LABEL = "sojourn"


@cache
def module() -> Path:
    """The library as it is installed here."""
    for path in MODULES:
        if path.exists():
            return path
    raise RuntimeError("SoftHSM is not installed: see tests/servers/packages.txt")


@cache
def folder() -> Path:
    """Where the tokens of this process are; the first call makes the token `LABEL`."""
    place = Path(tempfile.mkdtemp(prefix="softhsm-"))
    (place / "tokens").mkdir(mode=0o700)
    (place / "softhsm2.conf").write_text(
        f"directories.tokendir = {place / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    os.environ["SOFTHSM2_CONF"] = str(place / "softhsm2.conf")
    pin = secrets.token_hex(8)
    (place / "pin").write_text(pin)
    (place / "pin").chmod(0o600)
    initialise(LABEL, pin)
    initialise("other", pin)
    return place


def initialise(label: str, pin: str) -> None:
    """Make a token; a library that is loaded already does not see it."""
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        label,
        "--pin",
        pin,
        "--so-pin",
        secrets.token_hex(8),
    ]
    subprocess.run(command, check=True, capture_output=True)


def place() -> Place:
    """The token, for `open_key_store`."""
    return Place(module=module(), token=LABEL, pin=Reference("file", str(folder() / "pin")))


def sweep() -> None:
    """Destroy everything on the token, ours or not. The login is that of the store under test, when there is one."""
    import pkcs11

    where = place()
    assert where.pin is not None
    token = pkcs11.lib(str(where.module)).get_token(token_label=LABEL)
    try:
        session = token.open(rw=True, user_pin=where.pin.read().reveal())
    except pkcs11.exceptions.UserAlreadyLoggedIn:
        session = token.open(rw=True)
    for each in list(session.get_objects()):
        each.destroy()
