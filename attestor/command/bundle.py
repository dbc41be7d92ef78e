"""sojourn bundle: the trust domain's own bundle, and those of foreign ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from attestor.command.options import admin_options
from ca.runtime.terminal import Console, command_options


@click.group()
def bundle() -> None:
    """Show the trust domain's bundle; show, set and delete foreign ones."""


@bundle.command()
@click.argument("trust_domain", required=False)
@click.option("--pem", is_flag=True, help="Only the X.509 authorities, as PEM certificates.")
@admin_options
@command_options
async def show(
    *, console: Console, trust_domain: str | None, pem: bool, socket: Path | None, state: Path | None
) -> None:
    """Show the bundle of our own trust domain, or the one that is held of the foreign TRUST_DOMAIN.

    With --json it is printed in the SPIFFE form, as another trust domain, or a node agent's `trust_bundle`, takes it.

    Example: sojourn bundle show --json > bundle.json
    """
    from attestor.command.running import asking_admin
    from ca.spiffe.bundle import Bundle
    from ca.spiffe.id import TrustDomain

    path = "/v1/bundle" if trust_domain is None else f"/v1/federation/{quote(trust_domain, safe='')}"
    async with asking_admin(_socket(socket, state)) as admin:
        found = await admin.get(path)
    if console.json and not pem:
        console.result(found["bundle"])
        return
    document = json.dumps(found["bundle"]).encode()
    _tell(console, Bundle.from_jwks(TrustDomain.parse(found["trust_domain"]), document), pem=pem)


@bundle.command(name="set")
@click.argument("trust_domain")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@admin_options
@command_options
async def set_(*, console: Console, trust_domain: str, file: Path, socket: Path | None, state: Path | None) -> None:
    """Hold the bundle in FILE of the foreign TRUST_DOMAIN: a JWK Set in the SPIFFE form, or PEM certificates.

    It takes the place of what is held. Where the settings name an endpoint, that is asked at once, known by this
    bundle. How the file came here is your affair: whoever can change it on its way can name any member of that domain.

    Example: sojourn bundle set partner.example partner.json
    """
    from attestor.wire.trust_bundle import read_bundle
    from ca.spiffe.id import TrustDomain

    domain = TrustDomain.parse(trust_domain)
    body = {"document": read_bundle(file, domain).to_jwks().decode()}
    await _order(console, _socket(socket, state), "POST", f"/v1/federation/{quote(domain.name, safe='')}", body)


@bundle.command()
@click.argument("trust_domain")
@admin_options
@command_options
async def delete(*, console: Console, trust_domain: str, socket: Path | None, state: Path | None) -> None:
    """Hold no bundle of the foreign TRUST_DOMAIN: none of its members is believed from now on.

    One whose endpoint the settings name is fetched anew, known by the bundle the settings give.

    Example: sojourn bundle delete partner.example
    """
    await _order(console, _socket(socket, state), "DELETE", f"/v1/federation/{quote(trust_domain, safe='')}", None)


@bundle.command(name="list")
@admin_options
@command_options
async def list_(*, console: Console, socket: Path | None, state: Path | None) -> None:
    """List the foreign trust domains: what is held of each, since when, and what is wrong.

    Example: sojourn bundle list
    """
    await _order(console, _socket(socket, state), "GET", "/v1/federation", None)


@bundle.command()
@click.argument("trust_domain")
@admin_options
@command_options
async def refresh(*, console: Console, trust_domain: str, socket: Path | None, state: Path | None) -> None:
    """Ask the endpoint of the foreign TRUST_DOMAIN now.

    Example: sojourn bundle refresh partner.example
    """
    path = f"/v1/federation/{quote(trust_domain, safe='')}/refresh"
    await _order(console, _socket(socket, state), "POST", path, {})


def _socket(socket: Path | None, state: Path | None) -> Path:
    from attestor.command.running import running

    return socket or running(state).server_admin


async def _order(console: Console, socket: Path, method: str, path: str, body: dict[str, Any] | None) -> None:
    """Ask or give an order, and tell how it stands afterwards."""
    from attestor.command.running import asking_admin
    from attestor.wire.admin import FederationList

    async with asking_admin(socket) as admin:
        asked = {"GET": admin.get, "DELETE": admin.delete}.get(method)
        found = FederationList.model_validate(await (asked(path) if asked else admin.post(path, body)))
    if console.json:
        console.result(found.model_dump())
        return
    console.table(
        ("trust domain", "from", "sequence", "X.509", "JWT", "WIT", "last answer", "next question", "trouble"),
        [
            (
                one.trust_domain,
                one.url or "an operator",
                "-" if one.sequence is None else str(one.sequence),
                str(one.x509_authorities),
                str(one.jwt_authorities),
                str(one.wit_authorities),
                one.fetched_at or "-",
                one.due_at or "-",
                one.trouble or "-",
            )
            for one in found.domains
        ],
        empty="there is no foreign trust domain",
    )


def _tell(console: Console, found: Any, *, pem: bool) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    if pem:
        text = "".join(one.public_bytes(Encoding.PEM).decode() for one in found.x509_authorities)
        if console.json:
            console.result({"pem": text})
        else:
            click.echo(text, nl=False)
        return
    sequence = "-" if found.sequence is None else str(found.sequence)
    console.say("trust domain  ", str(found.trust_domain))
    console.say("sequence      ", sequence)
    for one in found.x509_authorities:
        subject = one.subject.rfc4514_string()
        console.say(
            "X.509         ",
            f"{subject}, serial {one.serial_number:x}, until {one.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        )
    for kind, keys in (("JWT", found.jwt_authorities), ("WIT", found.wit_authorities)):
        for key_id in keys:
            console.say(f"{kind}           ", key_id)
