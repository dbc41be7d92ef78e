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
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

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


def session() -> Any:
    """A session of our own, beside that of the store under test; one login holds for the whole process."""
    import pkcs11

    where = place()
    assert where.pin is not None
    token = pkcs11.lib(str(where.module)).get_token(token_label=LABEL)
    try:
        return token.open(rw=True, user_pin=where.pin.read().reveal())
    except pkcs11.exceptions.UserAlreadyLoggedIn:
        return token.open(rw=True)


def sweep() -> None:
    """Destroy everything on the token, ours or not."""
    for each in list(session().get_objects()):
        each.destroy()


def imported(label: str) -> ec.EllipticCurvePrivateKey:
    """A key that was made elsewhere and brought onto the token, as a root's key after its ceremony is."""
    import pkcs11
    from pkcs11.util.ec import decode_ec_private_key

    key = ec.generate_private_key(ec.SECP256R1())
    content = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    beside = session()
    template = decode_ec_private_key(content)
    beside.create_object(
        {
            **template,
            pkcs11.Attribute.LABEL: label,
            pkcs11.Attribute.ID: label.encode(),
            pkcs11.Attribute.TOKEN: True,
            pkcs11.Attribute.SENSITIVE: True,
            pkcs11.Attribute.SIGN: True,
        }
    )
    return key


def secret(label: str, **template: bool) -> None:
    """Lay a generic secret onto the token, which may sign."""
    from pkcs11 import Attribute, KeyType, Mechanism

    session().generate_key(
        KeyType.GENERIC_SECRET,
        256,
        label=label,
        store=True,
        mechanism=Mechanism.GENERIC_SECRET_KEY_GEN,
        template={Attribute[key]: value for key, value in {**template, "SIGN": True}.items()},
    )
