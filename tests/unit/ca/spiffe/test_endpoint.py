"""SPIFFE_Workload_Endpoint.md section 4: the address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ca.errors import Malformed
from ca.spiffe.endpoint import LONGEST_SOCKET_PATH, TcpEndpoint, UnixEndpoint, parse, parse_broker


@pytest.mark.parametrize("text", ["unix:///run/s.sock", "unix:/run/s.sock"])
def test_ep_9_unix_is_an_absolute_path(text: str) -> None:
    """Both spellings clients use."""
    assert parse(text) == UnixEndpoint("/run/s.sock")
    assert str(parse(text)) == "unix:///run/s.sock"


@pytest.mark.parametrize(
    "text",
    [
        "unix://host/run/s.sock",
        "unix:run/s.sock",
        "unix://",
        "unix:///",
        "unix:////run",
        "unix:///run/",
        "unix:///run?x=1",
        "unix:///run#x",
        "unix:///run%2fs",
        "unix:///ru\x00n",
        "unix:///run/s.sock\n",
        "unix:///" + "a" * LONGEST_SOCKET_PATH,
    ],
)
def test_ep_9_unix_with_anything_else_is_refused(text: str) -> None:
    """No authority, no query, no fragment, nothing a socket's name can't hold."""
    with pytest.raises(Malformed):
        parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("tcp://127.0.0.1:8000", TcpEndpoint("127.0.0.1", 8000)), ("tcp://[::1]:1", TcpEndpoint("::1", 1))],
)
def test_ep_10_tcp_is_an_address_and_a_port(text: str, expected: TcpEndpoint) -> None:
    """IPv4, and IPv6 in brackets."""
    assert parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "tcp://localhost:80",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:80/",
        "tcp://127.0.0.1:80/path",
        "tcp://me@127.0.0.1:80",
        "tcp://::1:80",
        "tcp://[127.0.0.1]:80",
        "tcp://127.0.0.1:+8",
        "tcp://127.0.0.1:٨",
        "tcp:127.0.0.1:80",
        "http://127.0.0.1:80",
        "/run/s.sock",
        "",
    ],
)
@pytest.mark.clause("EP-8")
def test_ep_10_tcp_with_anything_else_is_refused(text: str) -> None:
    """A host name is no address; a path, a user or another scheme has no place."""
    with pytest.raises(Malformed):
        parse(text)


@given(st.text() | st.text().map("unix://".__add__) | st.text().map("tcp://".__add__))
def test_any_text_is_an_endpoint_or_malformed(text: str) -> None:
    """No other exception, and what is read prints to something that reads the same."""
    try:
        endpoint = parse(text)
    except Malformed:
        return
    assert parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("unix:///run/broker.sock", UnixEndpoint("/run/broker.sock")),
        ("tcp://127.0.0.1:8082", TcpEndpoint("127.0.0.1", 8082)),
        ("tcp://[::1]:8082", TcpEndpoint("::1", 8082)),
        ("tcp://node-agent.example.org:8082", TcpEndpoint("node-agent.example.org", 8082)),
        ("tcp://localhost:1", TcpEndpoint("localhost", 1)),
    ],
)
def test_br_4_a_broker_endpoint_may_have_a_name(text: str, read: object) -> None:
    """An address or a DNS name, and a port."""
    assert parse_broker(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "tcp://node-agent:0",
        "tcp://node-agent",
        "tcp://node-agent:8082/path",
        "tcp://node-agent:8082?q",
        "tcp://user@node-agent:8082",
        "tcp://-node:8082",
        "tcp://node..agent:8082",
        "tcp://1.2.3:8082",
        "tcp://999.1.1.1:8082",
        f"tcp://{'a' * 64}:8082",
        "tcp:node-agent:8082",
        "https://node-agent:8082",
        "unix://relative.sock",
        "",
    ],
)
def test_br_4_anything_else_is_no_broker_endpoint(text: str) -> None:
    """Nothing but scheme, host and port; nothing that only looks like an address."""
    with pytest.raises(Malformed):
        parse_broker(text)
