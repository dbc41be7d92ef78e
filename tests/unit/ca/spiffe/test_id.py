"""SPIFFE-ID.md, clause by clause."""

from __future__ import annotations

import pytest

from ca.errors import Malformed
from ca.spiffe.id import SpiffeId, TrustDomain


def refused(text: str) -> str:
    """The sentence with which `text` is refused."""
    with pytest.raises(Malformed) as caught:
        SpiffeId.parse(text)
    return str(caught.value)


@pytest.mark.parametrize("text", ["http://example.org/a", "spiffe:/example.org", "example.org/a", "", "SPIFFE://a/b"])
def test_id_1_another_scheme_is_refused(text: str) -> None:
    """Only `spiffe://` begins a SPIFFE ID."""
    assert "spiffe" in refused(text).lower()


@pytest.mark.parametrize("text", ["spiffe://", "spiffe:///path"])
def test_id_1_an_empty_trust_domain_is_refused(text: str) -> None:
    """The trust domain must not be empty."""
    assert "must not be empty" in refused(text)


@pytest.mark.parametrize("text", ["spiffe://example.org/a?b", "spiffe://example.org?b", "spiffe://example.org/a#b"])
def test_id_2_query_and_fragment_are_refused(text: str) -> None:
    """A SPIFFE ID has neither."""
    refused(text)


@pytest.mark.parametrize("text", ["spiffe://me@example.org/a", "spiffe://example.org:80/a", "spiffe://example.org:/a"])
def test_id_3_userinfo_and_port_are_refused(text: str) -> None:
    """Both parts of the authority are empty."""
    refused(text)


def test_id_4_upper_case_host_is_refused() -> None:
    """`Example.org` would be a second spelling of one identity."""
    refused("spiffe://Example.org/a")


@pytest.mark.parametrize("name", ["ex%61mple.org", "exämple.org", "a b", "a\n", "[::1]", "a,b", "\u0130"])
def test_id_4_other_characters_are_refused(name: str) -> None:
    """Neither percent-encoding nor anything outside the small set, a line break at the end included."""
    refused(f"spiffe://{name}/a")
    refused(f"spiffe://{name}")


@pytest.mark.parametrize("name", ["10.0.0.1", "-example.org", "example..org", ".a.", "a_b", "a-", "1"])
def test_id_4_odd_but_legal_hosts_are_accepted(name: str) -> None:
    """What looks like an address or a bad DNS name is legal."""
    assert SpiffeId.parse(f"spiffe://{name}/a").trust_domain.name == name


def test_id_5_a_domain_is_not_treated_by_its_looks() -> None:
    """An address-like name is one name, not an address with other spellings."""
    assert SpiffeId.parse("spiffe://10.0.0.1/a") != SpiffeId.parse("spiffe://10.0.0.01/a")


@pytest.mark.parametrize("path", ["/", "/a/", "//a", "/a//b", "/.", "/..", "/a/../b", "/a/./b", "/%61"])
def test_id_6_bad_paths_are_refused(path: str) -> None:
    """No empty, `.` or `..` segment, no trailing slash, no percent-encoding."""
    refused(f"spiffe://example.org{path}")


@pytest.mark.parametrize("path", ["/...", "/.x", "/a_b-c.D9", "/a/b/c"])
def test_id_7_segments_of_the_legal_characters_are_accepted(path: str) -> None:
    """Letters, digits, dot, dash and underscore."""
    assert SpiffeId.parse(f"spiffe://example.org{path}").path == path


@pytest.mark.parametrize("path", ["/a b", "/ä", "/a:b", "/a*", "/a\\b", "/a\x00", "/a\n", "/a;b", "/~a"])
def test_id_7_other_characters_in_a_segment_are_refused(path: str) -> None:
    """Everything else is outside the grammar."""
    refused(f"spiffe://example.org{path}")


def test_id_8_2048_bytes_are_accepted_and_one_more_is_refused() -> None:
    """The length every implementation must support is the length this one keeps to."""
    longest = "spiffe://example.org/".ljust(2048, "a")
    assert str(SpiffeId.parse(longest)) == longest
    assert "2048" in refused(longest + "a")


def test_id_9_a_trust_domain_of_256_bytes_is_refused() -> None:
    """255 bytes is the most a host may have."""
    assert TrustDomain.parse("a" * 255).name == "a" * 255
    assert "255" in refused("spiffe://" + "a" * 256)


def test_id_10_the_path_is_case_sensitive() -> None:
    """`/A` and `/a` are two identities; nothing is normalised."""
    assert SpiffeId.parse("spiffe://a/A") != SpiffeId.parse("spiffe://a/a")


def test_a_trust_domain_reads_its_name_and_its_id() -> None:
    """`example.org` and `spiffe://example.org` name one domain; an ID with a path names none."""
    assert TrustDomain.parse("spiffe://example.org") == TrustDomain.parse("example.org")
    for text in ("spiffe://example.org/a", "example.org/", "spiffe://spiffe://a", ""):
        with pytest.raises(Malformed):
            TrustDomain.parse(text)


def test_members_and_their_domain() -> None:
    """A domain names its members, and they know it."""
    domain = TrustDomain.parse("example.org")
    assert str(domain.member("/a")) == "spiffe://example.org/a"
    assert domain.member("/a").member_of(domain)
    assert not domain.member("/a").member_of(TrustDomain.parse("example.com"))
    for path in ("a", "", ".evil/a"):
        with pytest.raises(Malformed):
            domain.member(path)


def test_what_is_quoted_in_an_error_can_not_break_a_line_of_the_log() -> None:
    """A hostile ID is shown escaped and cut."""
    message = refused("http\n" + "x" * 500)
    assert "\n" not in message
    assert len(message) < 250
