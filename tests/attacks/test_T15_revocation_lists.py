"""T15: who wants a list of every authority in a chain never has to do without, and no list takes back another's.

The verifier here is OpenSSL itself, told to check every certificate of the chain against a list (as Envoy does).
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestor.server.revocation import Revocations
from attestor.wire.node import Signed
from ca.profiles.prepared import Kind
from ca.revocation import PAUSE, Lists
from ca.spiffe.bundle import BundleSet
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import Revoked, verify
from fakes.attestor_parts import Parts, attestation, parts, wants
from fakes.pki import TestAuthority, der_chain
from fakes.revocations import make_list

RULES = "rules: [{name: a, nodes: ['node:*'], when: [unix:uid:7], spiffe_id: /a}]"


async def given(server: Parts) -> bytes:
    """A chain that was handed out."""
    (result,) = await server.workloads.sign(
        await server.join("n"), [wants("/a", attestation("unix:uid:7"))], server.clock.now()
    )
    assert isinstance(result, Signed)
    return result.chain


async def openssl(folder: Path, server: Parts, chain: bytes, at: datetime) -> str:
    """What `openssl verify -crl_check_all` says of it, with the root and every list there is."""
    path = server.peer(chain).chain
    pem = [each.public_bytes(Encoding.PEM) for each in path]
    lists = [x509.load_der_x509_crl(der).public_bytes(Encoding.PEM) for der in server.lists.ders]
    (folder / "leaf.pem").write_bytes(pem[0])
    (folder / "rest.pem").write_bytes(b"".join(pem[1:-1]))
    (folder / "root.pem").write_bytes(pem[-1])
    (folder / "lists.pem").write_bytes(b"".join(lists))
    command = ("openssl", "verify", "-crl_check_all", "-purpose", "sslserver", "-attime", str(int(at.timestamp())))
    known = ("-CRLfile", "lists.pem") if lists else ()
    files = ("-CAfile", "root.pem", "-untrusted", "rest.pem", *known, "leaf.pem")
    process = await asyncio.create_subprocess_exec(
        *command, *files, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode()


async def test_every_authority_of_a_chain_has_a_list_from_the_start(tmp_path: Path) -> None:
    """Without one of them such a verifier refuses everybody."""
    async with parts(tmp_path, RULES) as server:
        chain = await given(server)
        assert "unable to get certificate CRL" in await openssl(tmp_path, server, chain, server.clock.now())
        await server.lists.tick(server.clock.now())
        assert "leaf.pem: OK" in await openssl(tmp_path, server, chain, server.clock.now())
        behind = server.clock.now() - timedelta(seconds=20)
        assert "leaf.pem: OK" in await openssl(tmp_path, server, chain, behind)


async def test_a_dead_server_leaves_lists_that_last(tmp_path: Path) -> None:
    """Nobody signs another one: those there are, hold as long as the authority does."""
    async with parts(tmp_path, RULES) as server:
        await server.lists.tick(server.clock.now())
        newest = server.lists.newest(Kind.ISSUING)
        active = server.authority.ring.active(Kind.ISSUING)
        assert newest is not None
        assert active is not None
        assert newest.next_update == active.not_after


async def test_a_revoked_leaf_is_refused_by_openssl_and_its_neighbour_is_not(tmp_path: Path) -> None:
    """The list that names it takes the place of the empty one."""
    async with parts(tmp_path, RULES) as server:
        gone, stays = await given(server), await given(server)
        peer = server.peer(gone)
        await Revocations(server.database, server.instances).leaf(peer.issuer_key_id, peer.serial, server.clock.now())
        await server.lists.tick(server.clock.now())
        assert "certificate revoked" in await openssl(tmp_path, server, gone, server.clock.now())
        assert "leaf.pem: OK" in await openssl(tmp_path, server, stays, server.clock.now())
        bundle = server.authority.bundle(server.clock.now())
        with pytest.raises(Revoked):
            verify(der_chain(peer.chain[:-1]), BundleSet.of(bundle), server.clock.now(), server.lists.revocations)


async def test_a_federated_authority_takes_back_nothing_of_ours(tmp_path: Path) -> None:
    """Neither in its own name nor in that of our authority, with any number."""
    async with parts(tmp_path, RULES) as server:
        chain = await given(server)
        await server.lists.tick(server.clock.now())
        peer, foreign = server.peer(chain), TestAuthority("foreign.org", now=server.clock.now())
        ours = peer.chain[1]
        key_id = x509.AuthorityKeyIdentifier(peer.issuer_key_id, None, None)
        now, signer = server.clock.now(), (ours, foreign.issuer_key)
        forged = make_list(foreign, [peer.serial], number=2**62, now=now, signer=signer, key_id=key_id)
        lists = RevocationLists.of([make_list(foreign, [peer.serial], now=now), forged, *server.lists.ders])
        bundles = BundleSet.of(server.authority.bundle(server.clock.now()), foreign.bundle())
        assert verify(der_chain(peer.chain[:-1]), bundles, server.clock.now(), lists).serial == peer.serial


async def test_an_older_list_played_again_gives_nothing_back(tmp_path: Path) -> None:
    """Beside the newer one it does not count; and a restored store signs above what it had signed."""
    async with parts(tmp_path, RULES) as server:
        peer = server.peer(await given(server))
        await server.lists.tick(server.clock.now())
        empty = server.lists.ders
        order = Revocations(server.database, server.instances)
        await order.leaf(peer.issuer_key_id, peer.serial, server.clock.now())
        await server.clock.advance(PAUSE.total_seconds())
        await server.lists.tick(server.clock.now())
        for both in ([*empty, *server.lists.ders], [*server.lists.ders, *empty]):
            assert RevocationLists.of(both).revoked(peer.chain) is peer.chain[0]
        signed = max(one.number for one in server.lists.current)
        await server.database.write(lambda tx: tx.execute("DELETE FROM ca_lists"))  # restored from before all of them
        await server.clock.advance(60)
        restored = Lists(server.authority)
        await restored.tick(server.clock.now())
        assert min(one.number for one in restored.current) > signed
