"""Two real attestor servers of two trust domains: bundles over both profiles, and impostors."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt as pyjwt
import pytest
from aiohttp import web

from attestor.client.admin import AdminClient
from attestor.client.source import X509Source
from attestor.server.federation.endpoint import Endpoint, Profile, fetch
from attestor.server.federation.settings import FederatedDomain
from attestor.server.serve import Server
from attestor.server.settings import PublicWeb, ServerSettings
from attestor.server.web_certificate import WebCertificate
from attestor.wire.trust_bundle import read_bundle
from ca.errors import Conflict, Malformed, Unavailable
from ca.runtime.ciphers import CIPHERS
from ca.runtime.settings import BadSettings, loads
from ca.spiffe.bundle import Bundle
from ca.spiffe.id import TrustDomain
from ca.tls import public_context
from fakes.identity_side import CLOCK, RULES, address, both, server
from fakes.pki import TestAuthority
from fakes.web_pki import WebAuthority

ROOT = Path(__file__).resolve().parents[3]
PARTNER = TrustDomain.parse("partner.test")
ISSUER = "https://identity.partner.test"


@asynccontextmanager
async def partner(folder: Path) -> AsyncIterator[Server]:
    """A server of the foreign trust domain that publishes its bundle by both profiles."""
    folder.mkdir()
    authority = WebAuthority()
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "web.pem").write_bytes(authority.server_pem())
    shown = PublicWeb(certificate=folder / "web.pem", key=folder / "web.pem")
    async with (
        server(folder, trust_domain=PARTNER, public={"port": 0}, public_web=shown, jwt_issuer=ISSUER) as one,
        AdminClient(one.admin_socket) as admin,
    ):
        (folder / "bundle.json").write_text(json.dumps((await admin.get("/v1/bundle"))["bundle"]))
        yield one


def by_spiffe(one: Server, folder: Path, path: str = "/sojourn/server") -> FederatedDomain:
    """How the partner is named, known by its SVID."""
    assert one.public_address is not None
    return FederatedDomain(
        trust_domain=PARTNER,
        url=f"https://127.0.0.1:{one.public_address[1]}/bundle",
        profile="https_spiffe",
        spiffe_id=PARTNER.member(path),
        bundle=folder / "bundle.json",
    )


def by_web(one: Server, folder: Path) -> FederatedDomain:
    """How the partner is named, known by a CA of the web."""
    assert one.web_address is not None
    url = f"https://127.0.0.1:{one.web_address[1]}/bundle"
    return FederatedDomain(trust_domain=PARTNER, url=url, profile="https_web", ca_file=folder / "ca.pem")


async def settled(admin: AdminClient, wanted: Callable[[Any], bool]) -> Any:
    """What is said of the partner, once it is as wanted."""
    async with asyncio.timeout(30):
        while True:
            (one,) = (await admin.get("/v1/federation"))["domains"] or [None]
            if one is not None and wanted(one):
                return one
            await CLOCK.sleep(0.05)


@pytest.mark.parametrize("named", [by_spiffe, by_web])
@pytest.mark.clause("FED-6", "FED-8", "FED-11", "FED-13", "FED-18", "FED-19")
async def test_a_foreign_bundle_is_fetched_by_either_profile(
    tmp_path: Path, named: Callable[[Server, Path], FederatedDomain]
) -> None:
    """And is exactly what the other side shows."""
    async with (
        asyncio.timeout(60),
        partner(tmp_path / "p") as theirs,
        server(tmp_path, federation=(named(theirs, tmp_path / "p"),)) as ours,
        AdminClient(ours.admin_socket) as admin,
        AdminClient(theirs.admin_socket) as there,
    ):
        found = await settled(admin, lambda one: one["fetched_at"] is not None)
        assert (found["given_on"], found["trouble"]) == (True, "")
        held = (await admin.get("/v1/federation/partner.test"))["bundle"]
        assert held == (await there.get("/v1/bundle"))["bundle"]
        assert json.loads((await _read(theirs)).decode()) == held


@pytest.mark.clause("FED-20")
async def test_another_member_of_its_trust_domain_is_not_the_endpoint(tmp_path: Path) -> None:
    """Exactly the configured SPIFFE ID; what was given at first stays."""
    async with (
        asyncio.timeout(60),
        partner(tmp_path / "p") as theirs,
        server(tmp_path, federation=(by_spiffe(theirs, tmp_path / "p", "/another"),)) as ours,
        AdminClient(ours.admin_socket) as admin,
    ):
        found = await settled(admin, lambda one: one["failures"] > 0)
        assert "`spiffe://partner.test/another` was expected" in found["trouble"]
        assert (found["given_on"], found["fetched_at"]) == (True, None)


@pytest.mark.clause("FED-15", "FED-21")
async def test_only_who_is_known_is_heard(tmp_path: Path) -> None:
    """A CA that is not trusted; the bundle of somebody else; none at all."""
    async with asyncio.timeout(60), partner(tmp_path / "p") as theirs:
        assert theirs.web_address is not None
        (tmp_path / "other.pem").write_bytes(WebAuthority("other").pem)
        url = by_web(theirs, tmp_path / "p").url
        known = Endpoint(trust_domain=PARTNER, url=url, profile=Profile.WEB, ca_file=tmp_path / "other.pem")
        with pytest.raises(Unavailable, match="not trusted"):
            await fetch(known, None, CLOCK.now)
        named = Endpoint(
            trust_domain=PARTNER,
            url=url.replace("127.0.0.1", "localhost"),
            profile=Profile.WEB,
            ca_file=tmp_path / "p" / "ca.pem",
        )
        with pytest.raises(Unavailable, match="not trusted"):
            await fetch(named, None, CLOCK.now)
        endpoint = by_spiffe(theirs, tmp_path / "p").endpoint()
        stale = TestAuthority(PARTNER, now=CLOCK.now()).bundle()
        with pytest.raises(Unavailable, match="not the one"):
            await fetch(endpoint, stale, CLOCK.now)
        newest = Bundle.from_jwks(PARTNER, await _read(theirs))
        assert (await fetch(endpoint, newest, CLOCK.now)).x509_authorities == newest.x509_authorities


async def _read(one: Server) -> bytes:
    assert one.public_address is not None
    async with _asking() as session, session.get(f"https://127.0.0.1:{one.public_address[1]}/bundle") as answer:
        return await answer.read()


@asynccontextmanager
async def _asking() -> AsyncIterator[aiohttp.ClientSession]:
    """Somebody who shows no certificate and checks none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield session


@pytest.mark.clause("FED-12", "FED-13")
async def test_anybody_reads_the_bundle_and_nobody_writes(tmp_path: Path) -> None:
    """Both listeners: no client is asked who he is; JSON in UTF-8, a name for its content, GET and HEAD alone."""
    async with asyncio.timeout(60), partner(tmp_path / "p") as theirs, _asking() as session:
        for where in (theirs.public_address, theirs.web_address):
            assert where is not None
            url = f"https://127.0.0.1:{where[1]}/bundle"
            async with session.get(url) as answer:
                assert (answer.status, answer.content_type, answer.charset) == (200, "application/json", "utf-8")
                assert answer.headers["Cache-Control"] == "max-age=30"
                tag = answer.headers["ETag"]
            async with session.get(url, headers={"If-None-Match": tag}) as answer:
                assert (answer.status, await answer.read()) == (304, b"")
            async with session.head(url) as answer:
                assert (answer.status, answer.headers["ETag"]) == (200, tag)
            async with session.post(url, data=b"{}") as answer:
                assert answer.status == 405


async def test_discovery_leads_an_independent_reader_to_the_keys(tmp_path: Path) -> None:
    """PyJWT reads the key set; nothing but keys for signatures stands in it."""
    async with asyncio.timeout(60), partner(tmp_path / "p") as theirs, _asking() as session:
        assert theirs.web_address is not None
        base = f"https://127.0.0.1:{theirs.web_address[1]}"
        async with session.get(f"{base}/.well-known/openid-configuration") as answer:
            found = await answer.json()
        assert (found["issuer"], found["jwks_uri"]) == (ISSUER, f"{ISSUER}/keys")
        assert found["id_token_signing_alg_values_supported"] == ["ES256"]
        async with session.get(f"{base}/keys") as answer:
            keys = pyjwt.PyJWKSet.from_dict(await answer.json())
        assert {one.public_key_use for one in keys.keys} == {"sig"}
        bundle = Bundle.from_jwks(PARTNER, await _read(theirs))
        assert {one.key_id for one in keys.keys} == set(bundle.jwt_authorities)


async def test_an_operators_word_and_what_it_may_not_be(tmp_path: Path) -> None:
    """Set, shown, deleted; never our own domain, never a key of ours."""
    async with asyncio.timeout(60), server(tmp_path) as ours, AdminClient(ours.admin_socket) as admin:
        own = (await admin.get("/v1/bundle"))["bundle"]
        foreign = TestAuthority(PARTNER, now=CLOCK.now()).bundle(sequence=7)
        body = {"document": foreign.to_jwks().decode()}
        (one,) = (await admin.post("/v1/federation/partner.test", body))["domains"]
        assert (one["given_on"], one["sequence"], one["source"]) == (True, 7, "operator")
        with pytest.raises(Malformed, match="key of our own"):
            await admin.post("/v1/federation/partner.test", {"document": json.dumps(own)})
        with pytest.raises(Conflict, match="never taken from outside"):
            await admin.post("/v1/federation/example.org", body)
        assert (await admin.get("/v1/federation/partner.test"))["bundle"] == json.loads(foreign.to_jwks())
        assert await admin.delete("/v1/federation/partner.test") == {"domains": []}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("url: http://partner.test/, profile: https_web", "begin with `https://`"),
        ("url: 'https://me@partner.test/', profile: https_web", "user name"),
        ("url: https://partner.test/", "required"),
        ("url: https://partner.test/, profile: https_spiffe", "needs the server's `spiffe_id`"),
        ("url: https://p.test/, profile: https_spiffe, spiffe_id: spiffe://partner.test/s", "needs `bundle`"),
        ("url: https://p.test/, profile: https_web, spiffe_id: spiffe://partner.test/s", "for `https_spiffe`"),
    ],
)
@pytest.mark.clause("FED-8", "FED-10", "FED-18")
def test_what_is_not_said_is_not_inferred(line: str, fault: str) -> None:
    """Each fault has its sentence."""
    with pytest.raises(BadSettings, match=fault):
        loads(f"{{trust_domain: partner.test, {line}}}", "federation.yaml", FederatedDomain)


@pytest.mark.clause("FED-22")
def test_the_bundle_of_an_endpoint_elsewhere_has_a_source_of_its_own(tmp_path: Path) -> None:
    """An endpoint of a third trust domain is refused in the settings while nothing names that one's bundle."""
    one = FederatedDomain(
        trust_domain=PARTNER,
        url="https://third.test/",
        profile="https_spiffe",
        spiffe_id=TrustDomain.parse("third.test").member("/server"),
    )
    with pytest.raises(ValueError, match=r"nothing else names the bundle of `third\.test`"):
        ServerSettings(
            trust_domain=TrustDomain.parse("example.org"),
            admin_socket=tmp_path / "s",
            database=f"sqlite:{tmp_path}/db",
            federation=(one,),
        )


@pytest.mark.clause("FED-7")
def test_tls_is_that_of_the_intermediate_configuration(tmp_path: Path) -> None:
    """Of 1.2 only forward secret, authenticated ciphers; nothing older."""
    (tmp_path / "web.pem").write_bytes(WebAuthority().server_pem())
    shown = WebCertificate(tmp_path / "web.pem", tmp_path / "web.pem")
    context = public_context(shown.material, on_refusal=lambda _: None)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    old = {one["name"] for one in context.get_ciphers() if one["protocol"] == "TLSv1.2"}
    assert old == set(CIPHERS.split(":"))
    before = shown.material()
    (tmp_path / "web.pem").write_text("half written")
    assert shown.material() is before
    (tmp_path / "web.pem").write_bytes(WebAuthority().server_pem())
    assert shown.material() is not before


@pytest.mark.clause("FED-9")
async def test_a_bundle_is_given_on_with_its_trust_domain(tmp_path: Path) -> None:
    """To a workload whose rule federates with it, beside our own and under its own name; to others not at all."""
    (tmp_path / "rules.yaml").write_text(RULES + "    federates_with: [partner.test]\n")
    foreign = TestAuthority(PARTNER, now=CLOCK.now()).bundle()
    async with (
        asyncio.timeout(60),
        both(tmp_path) as (ours, node),
        AdminClient(ours.admin_socket) as admin,
        X509Source.open(address(node)) as source,
    ):
        assert source.bundles.get(PARTNER) is None
        await admin.post("/v1/federation/partner.test", {"document": foreign.to_jwks().decode()})
        while (found := source.bundles.get(PARTNER)) is None:
            await CLOCK.sleep(0.05)
        assert found.x509_authorities == foreign.x509_authorities
        assert source.bundles.get(ours.trust_domain) is not None
        await admin.delete("/v1/federation/partner.test")
        while source.bundles.get(PARTNER) is not None:
            await CLOCK.sleep(0.05)


@pytest.mark.clause("FED-16", "FED-17")
async def test_a_redirect_is_followed_and_held_to_the_same(tmp_path: Path) -> None:
    """To another path it leads to the bundle; to plain HTTP, or round and round, nowhere."""
    bundle = TestAuthority(PARTNER, now=CLOCK.now()).bundle()
    authority = WebAuthority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/bundle":
            return web.Response(body=bundle.to_jwks(), content_type="application/json")
        if request.path == "/junk":
            return web.Response(body=b'{"keys": [1]}')
        raise web.HTTPFound(request.query["to"])

    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server()).start()
    base = f"https://127.0.0.1:{runner.addresses[0][1]}"

    async def ask(path: str) -> Bundle:
        one = Endpoint(trust_domain=PARTNER, url=base + path, profile=Profile.WEB, ca_file=tmp_path / "ca.pem")
        return await fetch(one, None, CLOCK.now)

    assert await ask("/?to=/bundle") == bundle
    with pytest.raises(Unavailable, match="no `https` address"):
        await ask("/?to=http://127.0.0.1/bundle")
    with pytest.raises(Unavailable, match="more than 4 times"):
        await ask("/?to=/%3Fto=/%3Fto%3D/%253Fto%253D/%25253Fto%25253D/%2525253Fto%2525253D/bundle")
    with pytest.raises(Malformed, match="no `keys`"):
        await ask("/junk")
    await runner.cleanup()


@pytest.mark.parametrize("form", ["--json", "--pem"])
async def test_what_the_command_prints_is_a_bundle_a_node_agent_takes(tmp_path: Path, form: str) -> None:
    """In either form; the commands of the chart's notes hand it over."""
    pipe = asyncio.subprocess.PIPE
    async with asyncio.timeout(60), server(tmp_path) as ours:
        words = ("-m", "broker", "bundle", "show", form, "--socket", str(ours.admin_socket))
        process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=pipe, cwd=ROOT)
        printed, _ = await process.communicate()
        (tmp_path / "bundle").write_bytes(printed)
        assert process.returncode == 0
        assert len(read_bundle(tmp_path / "bundle", ours.trust_domain).x509_authorities) == 1
