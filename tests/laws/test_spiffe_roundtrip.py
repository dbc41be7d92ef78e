"""parse and print of SPIFFE IDs are inverse, and nothing outside the grammar is ever read."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from ca.errors import Malformed
from ca.spiffe.id import SpiffeId, TrustDomain
from ca.spiffe.match import IdPattern

_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[a-zA-Z0-9._-]+"
_GRAMMAR = re.compile(rf"spiffe://[a-z0-9._-]{{1,255}}(?:/{_SEGMENT})*\Z")
"""SPIFFE-ID.md section 2 once more, written in another way than the parser."""

_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=255)
_segments = st.text("abcXYZ019.-_", min_size=1, max_size=30).filter(lambda each: each not in {".", ".."})
_ids = st.builds(
    lambda name, path: f"spiffe://{name}" + "".join(f"/{each}" for each in path), _names, st.lists(_segments)
)
_near = st.text("spife:/ab.A-_%?#@\n\x00", max_size=40)
_anything = st.text() | _near | _near.map("spiffe://".__add__) | _near.map("spiffe://td/".__add__)


@given(_ids.filter(lambda text: len(text) <= 2048))
def test_what_is_in_the_grammar_is_read_and_printed_the_same(text: str) -> None:
    """Print ∘ parse is the identity on IDs."""
    read = SpiffeId.parse(text)
    assert str(read) == text
    assert SpiffeId.parse(str(read)) == read
    assert TrustDomain.parse(str(read.trust_domain.id)) == read.trust_domain


@given(_anything)
@example("spiffe://a/b\n")
@example("spiffe://a\n")
@example("spiffe://a/..")
@example("spiffe://a/\ud800")
def test_what_is_read_is_in_the_grammar(text: str) -> None:
    """Nothing else is read, and nothing but Malformed is raised."""
    try:
        read = SpiffeId.parse(text)
    except Malformed:
        assert not _GRAMMAR.match(text)
        return
    assert _GRAMMAR.match(text)
    assert str(read) == text


@given(_ids.filter(lambda text: len(text) <= 2048), _anything)
def test_a_pattern_for_one_id_means_no_other(text: str, other: str) -> None:
    """exactly(id) matches id, and whatever else it matches is id."""
    pattern = IdPattern.exactly(SpiffeId.parse(text))
    assert pattern.matches(SpiffeId.parse(text))
    try:
        stranger = SpiffeId.parse(other)
    except Malformed:
        return
    assert pattern.matches(stranger) == (other == text)
