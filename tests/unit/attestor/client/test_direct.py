"""A source fed by direct attestation, against a whole server and a cluster's API, both over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from attestor.client.direct import DirectServer, PlatformToken, open_direct
from attestor.client.errors import NoIdentity, Unreachable
from attestor.methods.platform.cluster import ClusterSettings
from attestor.server.serve import Server, serve
from attestor.server.settings import Listen
from ca.errors import Problem, Unauthenticated, Unavailable
from ca.runtime.clock import SystemClock
from ca.runtime.process import Readiness
from fakes.attestor_parts import DOMAIN
from fakes.clock import ManualClock
from fakes.commands import invoke
from fakes.direct_parts import RULES
from fakes.kubernetes import FakeCluster, cluster
from fakes.node_client import server_settings


@dataclass
class Scene:
    """A pod, its token in a file, and the server it attests to."""

    folder: Path
    api: FakeCluster
    server: Server
    clock: ManualClock

    def __post_init__(self) -> None:
        self.pod = self.api.add_pod("shop", "cart-0", node="n", account="cart")
        self.project()
        bundle = self.server._parts.authority.bundle(self.clock.now())
        roots = [one.public_bytes(serialization.Encoding.PEM) for one in bundle.x509_authorities]
        (self.folder / "bundle.pem").write_bytes(b"".join(roots))

    def project(self, audience: str = "sojourn") -> None:
        """The kubelet puts a new token in place."""
        (self.folder / "token").write_text(self.api.token(self.pod, [audience]) + "\n")

    @property
    def where(self) -> DirectServer:
        """Its public address."""
        assert self.server.public_address is not None
        host, port = self.server.public_address
        return DirectServer(f"https://{host}:{port}/", DOMAIN, self.folder / "bundle.pem")

    @property
    def token(self) -> PlatformToken:
        """What the pod shows."""
        return PlatformToken(method="k8s_token", platform="prod", token_file=self.folder / "token")


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    """For at most a minute; the client's clock stands still."""
    folder.mkdir(exist_ok=True)
    (folder / "rules.yaml").write_text(RULES)
    clock = SystemClock()
    async with asyncio.timeout(60), cluster(folder / "prod") as api:
        clusters = (ClusterSettings(name="prod", api=api.settings),)
        settings = server_settings(folder, clusters=clusters, direct=True, public=Listen())
        async with serve(settings, clock, Readiness()) as server:
            yield Scene(folder, api, server, ManualClock(clock.now()))


async def test_a_source_without_a_node_agent(tmp_path: Path) -> None:
    """Renewed at half of its shortest life with the same key; a newer token brings a key of its own."""
    async with scene(tmp_path) as one, open_direct(one.where, one.token, one.clock) as source:
        first = source.svid
        assert str(first.id) == "spiffe://example.org/shop/cart"
        assert [str(each.id) for each in source.svids] == [str(first.id), "spiffe://example.org/second"]
        assert source.bundles.get(DOMAIN) is not None
        await one.clock.until(lambda: source.svid.not_before != first.not_before or source.svid is not first, step=1)
        second = source.svid
        assert (second.instance, second.key_der()) == (first.instance, first.key_der())
        one.project()
        await one.clock.until(lambda: source.svid is not second and source.svid.key_der() != first.key_der(), step=1)
        assert source.svid.instance == first.instance


async def test_a_pod_without_an_identity_any_more_stops_using_it(tmp_path: Path) -> None:
    """When the rules give nothing; an API that is away takes nothing."""
    async with scene(tmp_path) as one:
        told: list[Problem] = []
        async with open_direct(one.where, one.token, one.clock, waiting=told.append) as source:
            one.api.status = 503
            await one.clock.until(lambda: any(isinstance(each, Unavailable) for each in told), step=1)
            assert source.svid
            one.api.status = None
            (tmp_path / "rules.yaml").write_text("rules: []")
            await one.clock.until(lambda: any(isinstance(each, NoIdentity) for each in told), step=1)
            with pytest.raises(NoIdentity):
                assert source.svid


async def test_a_token_for_somebody_else_is_not_taken(tmp_path: Path) -> None:
    """The source waits until the right one is there."""
    async with scene(tmp_path) as one:
        told: list[Problem] = []
        one.project("other")

        async def later() -> None:
            await one.clock.until(lambda: any(isinstance(each, Unauthenticated) for each in told), step=0.01)
            one.project()
            await one.clock.until(lambda: bool(opened), step=0.01)

        opened: list[str] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(later())
            async with open_direct(one.where, one.token, one.clock, waiting=told.append) as source:
                opened.append(str(source.svid.id))


async def test_an_impostor_is_not_shown_the_token(tmp_path: Path) -> None:
    """Another root under the same name: nothing is posted."""
    async with scene(tmp_path / "a") as right, scene(tmp_path / "b") as impostor:
        told: list[Problem] = []
        where = DirectServer(impostor.where.url, DOMAIN, right.folder / "bundle.pem")

        async def hear() -> None:
            async with open_direct(where, right.token, right.clock, waiting=told.append):
                raise AssertionError("it has no identity to give")

        async with asyncio.TaskGroup() as group:
            hearing = group.create_task(hear())
            await right.clock.until(lambda: len(told) > 1, step=0.01)
            hearing.cancel()
        assert all(isinstance(each, Unreachable) for each in told)
        assert [asked for asked in impostor.api.requests if asked[0] == "POST"] == []


async def test_the_command_writes_files(tmp_path: Path) -> None:
    """For programs that know nothing but files."""
    async with scene(tmp_path) as one:
        said = ["--server", one.where.url, "--trust-domain", "example.org", "--trust-bundle", one.where.trust_bundle]
        said += ["--platform", "prod", "--token-file", one.token.token_file, "--once"]
        result = await invoke("svid", "direct", tmp_path / "out", *said)
        assert result.exit_code == 0, result.output
        found = {path.name for path in (tmp_path / "out" / "current").iterdir()}
        assert found == {"svid.pem", "key.pem", "combined.pem", "bundle.pem"}
