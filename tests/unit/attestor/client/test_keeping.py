"""An SVID and tokens kept in files: what is written when, and that no reader sees halves."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from attestor.client.beside import beside
from attestor.client.errors import NoIdentity, Unreachable
from attestor.client.files import SvidFiles
from attestor.client.keeping import Wanted, Written, keep_files
from attestor.client.source import JwtSource, X509Source
from ca.spiffe.id import SpiffeId
from ca.spiffe.jwtsvid import JwtSvid
from fakes.pki import TestAuthority
from fakes.revocations import make_list
from fakes.workload import Agent, workload_api

TOKENS = {"vault.jwt": ("vault",), "both.jwt": ("orders", "payments")}


@dataclass
class Place:
    """What keeps the files, and what it said."""

    agent: Agent
    folder: Path
    written: list[Written] = field(default_factory=list)

    @property
    def current(self) -> Path:
        """The newest state."""
        return self.folder / "current"

    async def told(self, new: Written) -> None:
        """Remember."""
        self.written.append(new)

    async def states(self, count: int) -> None:
        """Until so many were written."""
        await self.agent.clock.until(lambda: len(self.written) >= count)
        assert len(self.written) == count

    def list(self, serial: int) -> None:
        """The authority takes somebody back."""
        issuer = self.agent.issuer
        issuer.revocation_lists = (make_list(issuer.authority, [serial], now=self.agent.clock.now()),)

    async def rotate(self) -> None:
        """A new certificate, at half its life."""
        await self.agent.clock.advance(31 * 60)
        await self.agent.tick()


@asynccontextmanager
async def keeping(folder: Path, wanted: Wanted, expect: type[Exception] | None = None) -> AsyncIterator[Place]:
    """Keep files beside the body; `expect` is what ends it by itself."""
    async with workload_api(folder) as agent, asyncio.TaskGroup() as group:
        place = Place(agent, folder / "files")

        async def keep() -> None:
            async with (
                X509Source.open(agent.address, agent.clock) as source,
                JwtSource.open(agent.address, agent.clock) as jwt,
            ):
                await keep_files(source, SvidFiles(place.folder), wanted, jwt=jwt, told=place.told)

        async def until_it_ends() -> None:
            with pytest.raises(expect or RuntimeError):
                await keep()

        running = group.create_task(until_it_ends() if expect else keep())
        await place.states(1)
        yield place
        if expect:
            await agent.clock.until(running.done)
        running.cancel()


async def test_files_follow_a_source_and_go_with_the_identity(tmp_path: Path) -> None:
    """A rotation is a new state; a withdrawal leaves nothing behind, no token either."""
    async with keeping(tmp_path, Wanted(tokens=TOKENS), NoIdentity) as place:
        await place.rotate()
        await place.agent.clock.until(lambda: any("svid.pem" in one.changed for one in place.written[1:]))
        assert place.current.resolve() == place.written[-1].folder
        place.agent.issuer.given, place.agent.issuer.rules_version = (lambda _: ()), "2"
        await place.agent.tick()
    assert list(place.folder.iterdir()) == []


async def test_a_state_that_is_the_same_is_not_written_again(tmp_path: Path) -> None:
    """A push of something that nobody wanted in a file."""
    async with keeping(tmp_path, Wanted()) as place:
        place.list(77)
        await place.agent.clock.advance(4)
        await place.agent.tick()
        await place.rotate()
        await place.states(2)
        assert {"svid.pem", "key.pem", "combined.pem"} == place.written[1].changed


async def test_what_is_asked_for_is_written_too(tmp_path: Path) -> None:
    """A file for each federated domain and one with all; revocation lists as PEM; the rest stays as it was."""
    async with keeping(tmp_path, Wanted(federated=True, revocation_lists=True)) as place:
        assert not (place.current / "crl.pem").exists()
        own = place.agent.issuer.authority.bundle()
        for name in ("bundle.pem", "bundles.pem", f"bundle.{own.trust_domain.name}.pem"):
            found = x509.load_pem_x509_certificates((place.current / name).read_bytes())
            assert tuple(found) == own.x509_authorities
        place.list(77)
        await place.agent.clock.advance(4)
        await place.agent.tick()
        await place.states(2)
        assert place.written[1].changed == {"crl.pem"}
        (listed,) = x509.load_pem_x509_crl((place.current / "crl.pem").read_bytes())
        assert listed.serial_number == 77


async def test_tokens_are_fresh_at_half_their_life(tmp_path: Path) -> None:
    """Each is for its own audiences; a state of which only tokens are new says so."""
    async with keeping(tmp_path, Wanted(tokens=TOKENS)) as place:
        first = {name: (place.current / name).read_text() for name in TOKENS}
        lives = place.written[0].tokens["vault.jwt"].expires_at - place.agent.clock.now()
        assert place.written[0].tokens["both.jwt"].audience == ("orders", "payments")
        assert not place.written[0].only_tokens
        await place.agent.clock.advance(lives.total_seconds() / 2 + 1)
        await place.states(2)
        assert place.written[1].only_tokens
        assert place.written[1].changed == set(TOKENS)
        assert all((place.current / name).read_text() != text for name, text in first.items())


class Breaking:
    """Tokens of a real source; a fetch that is cancelled says that the connection broke, as grpclib may."""

    def __init__(self, jwt: JwtSource) -> None:
        self._jwt, self.clock, self.subscribe = jwt, jwt.clock, jwt.subscribe
        self.fetched = 0

    async def fetch(self, audience: Sequence[str], subject: SpiffeId) -> JwtSvid:
        """The first is answered."""
        self.fetched += 1
        if self.fetched == 1:
            return await self._jwt.fetch(audience, subject)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise Unreachable("the connection broke") from None
        raise AssertionError


async def test_who_leaves_while_the_connection_breaks_is_not_kept(tmp_path: Path) -> None:
    """It would fetch tokens for ever otherwise, for nobody."""
    async with (
        asyncio.timeout(60),
        workload_api(tmp_path) as agent,
        X509Source.open(agent.address, agent.clock) as source,
        JwtSource.open(agent.address, agent.clock) as jwt,
    ):
        place, breaking = Place(agent, tmp_path / "files"), Breaking(jwt)
        wanted = Wanted(tokens={"vault.jwt": ("vault",)})
        work = keep_files(source, SvidFiles(place.folder), wanted, jwt=cast("JwtSource", breaking), told=place.told)
        async with beside(work):
            await place.states(1)
            while breaking.fetched < 2:
                await agent.clock.advance(10)
        assert breaking.fetched == 2


async def test_a_token_that_can_not_be_had_leaves_the_rest_alone(tmp_path: Path) -> None:
    """The old one stays until it expires, then it is gone; it comes back by itself."""
    async with keeping(tmp_path, Wanted(tokens=TOKENS)) as place:
        place.agent.issuer.down = True
        lives = place.written[0].tokens["vault.jwt"].expires_at - place.agent.clock.now()
        await place.agent.clock.until(
            lambda: not (place.current / "vault.jwt").exists(), step=lives.total_seconds() / 8
        )
        assert (place.current / "svid.pem").exists()


@pytest.mark.parametrize("way", ["combined", "through the link's target"])
def test_readers_never_see_halves(tmp_path: Path, way: str) -> None:
    """Two that read without a pause while thirty states are put in place."""
    authority, files = TestAuthority(), SvidFiles(tmp_path / "files")
    leaves = [authority.leaf() for _ in range(10)]
    files.write(leaves[0], authority.bundle())
    read = {"combined": combined, "through the link's target": through_the_target}[way]
    done, wrong, seen = threading.Event(), list[BaseException](), set[int]()

    def hammer() -> None:
        try:
            while not done.is_set():
                seen.add(belongs(*read(files.current)))
        except BaseException as error:  # noqa: BLE001  # told by the test
            wrong.append(error)

    readers = [threading.Thread(target=hammer) for _ in range(2)]
    for one in readers:
        one.start()
    try:
        for turn in range(30):
            files.write(leaves[turn % 10], authority.bundle())
    finally:
        done.set()
        for one in readers:
            one.join()
    assert wrong == []
    assert len(seen) > 1


def combined(current: Path) -> tuple[bytes, bytes]:
    """One file with both."""
    content = (current / "combined.pem").read_bytes()
    return content, content


def through_the_target(current: Path) -> tuple[bytes, bytes]:
    """Two files of one folder that is opened once; whoever was slower than two states opens it anew."""
    while True:
        folder = os.open(current, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = [_content(name, folder) for name in ("svid.pem", "key.pem")]
        except FileNotFoundError:
            continue
        finally:
            os.close(folder)
        return found[0], found[1]


def _content(name: str, folder: int) -> bytes:
    with open(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:  # noqa: PTH123
        return file.read()


def belongs(chain: bytes, key: bytes) -> int:
    """The number of the certificate, when the key is its own."""
    leaf = x509.load_pem_x509_certificates(chain)[0]
    assert load_pem_private_key(key, None).public_key() == leaf.public_key()
    return leaf.serial_number
