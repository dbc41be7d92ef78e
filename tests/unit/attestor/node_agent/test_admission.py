"""Which of several servers a node agent speaks to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from attestor.node_agent.admission import Address
from attestor.node_agent.settings import NodeAgentSettings
from ca.runtime.clock import SystemClock
from ca.runtime.settings import BadSettings, loads
from ca.spiffe.id import TrustDomain

DOMAIN = TrustDomain.parse("example.org")


def test_the_next_is_tried_and_one_knows_when_all_were() -> None:
    """A round is over when each was tried since the last that answered."""
    address = Address("a", 1, DOMAIN, [("b", 2), ("c", 3)])
    rounds = [(address.turn(), address.host, address.port) for _ in range(4)]
    assert rounds == [(False, "b", 2), (False, "c", 3), (True, "a", 1), (False, "b", 2)]
    address.holds()
    assert [address.turn() for _ in range(3)] == [False, False, True]


def test_one_server_alone_is_a_round_of_its_own() -> None:
    """So it is tried more and more slowly."""
    address = Address("a", 1, DOMAIN)
    assert [(address.turn(), address.host) for _ in range(2)] == [(True, "a")] * 2


def _settings(tmp_path: Path, more: str) -> NodeAgentSettings:
    text = (
        f"trust_domain: example.org\nstate: {tmp_path}/s\nworkload_socket: {tmp_path}/w\nadmin_socket: {tmp_path}/a\n"
    )
    return loads(text + more, "node-agent.yaml", NodeAgentSettings)


def test_servers_are_said_in_one_way_only(tmp_path: Path) -> None:
    """`server`, or `servers` in the order in which they are tried."""
    assert _settings(tmp_path, "").addresses() == (("127.0.0.1", 8081),)
    assert _settings(tmp_path, "server: {host: a, port: 1}\n").addresses() == (("a", 1),)
    assert _settings(tmp_path, "servers: [{host: a, port: 1}, {host: b}]\n").addresses() == (("a", 1), ("b", 8081))
    with pytest.raises(BadSettings, match="expected one"):
        _settings(tmp_path, "server: {host: a}\nservers: [{host: b}]\n")


async def test_a_link_that_has_ended_is_not_made_again() -> None:
    """A call that was under way when it ended must not open a connection that nobody closes."""
    accepted: list[object] = []
    server = await asyncio.start_server(lambda *ends: accepted.append(ends), "127.0.0.1", 0)
    async with server:
        link = Address("127.0.0.1", server.sockets[0].getsockname()[1], DOMAIN).pinned("00", SystemClock().now)
        link.close()
        with pytest.raises(ConnectionResetError, match="has ended"):
            await link.__connect__()
    assert accepted == []
