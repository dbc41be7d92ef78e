"""There is one road from a WIT to an identity: with its proof. Whatever comes another way is refused or no identity.

Half of this walks our own source, because Python can't hide a name; the other half tries every pair of tokens.
"""

from __future__ import annotations

import ast
import inspect
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ca
from ca.errors import Problem
from ca.spiffe import proof, witsvid
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import SpiffeId
from ca.spiffe.proof import WitPeer
from ca.spiffe.replay import ReplayCache, Replayed
from ca.spiffe.witsvid import UnprovenWit, WitSvid
from fakes.pki import NOON, TestAuthority, make_key
from fakes.wits import HERE, WitIssuer, make_proof

assert ca.__file__ is not None
ROOT = Path(ca.__file__).parents[1]
SOURCES = sorted(file for folder in ("ca", "attestor", "broker") for file in (ROOT / folder).rglob("*.py"))
ISSUER = WitIssuer(TestAuthority("example.org", seed="road"), "road")
BUNDLES = BundleSet.of(ISSUER.bundle())
KEYS = [make_key(f"holder {n}") for n in range(3)]
SVIDS = [ISSUER.svid(f"/{n % 2}", holder=KEYS[n]) for n in range(3)]


def calls(file: Path, name: str) -> bool:
    """Whether something of this name is called in a file."""
    text = file.read_text()
    if name not in text:
        return False
    called = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return any(name in {getattr(each, "id", None), getattr(each, "attr", None)} for each in called)


def test_only_a_proof_makes_a_peer() -> None:
    """And `UnprovenWit` is made where its signature was checked."""
    made = {name: [str(file.relative_to(ROOT)) for file in SOURCES if calls(file, name)] for name in _MAKERS}
    assert made == _MAKERS


_MAKERS = {"WitPeer": ["ca/spiffe/proof.py"], "UnprovenWit": ["ca/spiffe/witsvid.py"]}


def test_nothing_that_takes_a_wit_alone_gives_an_identity() -> None:
    """Every public function of the two modules, by its types: an identity comes of both tokens, or of one's own key."""
    holders = {WitPeer, WitSvid, SpiffeId}
    giving = {
        f"{module.__name__}.{name}": set(inspect.signature(function).parameters)
        for module in (witsvid, proof)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
        if typing.get_type_hints(function).get("return") in holders
    }
    assert set(giving) == {"ca.spiffe.proof.verify"}
    assert {"wit_token", "proof_token", "seen", "audiences"} <= giving["ca.spiffe.proof.verify"]
    assert SpiffeId not in typing.get_type_hints(UnprovenWit).values()


@given(
    wit=st.integers(0, 2),
    signer=st.integers(0, 2),
    about=st.integers(0, 2),
    audience=st.sampled_from([HERE, "https://other.example.org", ""]),
)
def test_a_pair_is_a_peer_exactly_when_key_token_and_audience_fit(
    wit: int, signer: int, about: int, audience: str
) -> None:
    """Of all pairs of three workloads' tokens, keys and receivers."""
    shown = make_proof(SVIDS[about], key=KEYS[signer], claims={"aud": audience})
    fits = wit == signer == about and audience == HERE
    try:
        peer = proof.verify(SVIDS[wit].token, shown, audiences=[HERE], bundles=BUNDLES, now=NOON, seen=ReplayCache())
    except Problem:
        assert not fits
    else:
        assert fits
        assert peer.id == SVIDS[wit].id


@given(st.lists(st.integers(0, 3), max_size=12))
def test_each_proof_opens_once_in_whatever_order_they_come(order: list[int]) -> None:
    """One cache, four proofs, any sequence of showings."""
    cache, proofs = ReplayCache(), [make_proof(SVIDS[0], claims={"jti": str(n)}) for n in range(4)]
    opened: set[int] = set()
    for number in order:
        if number in opened:
            with pytest.raises(Replayed):
                proof.verify(SVIDS[0].token, proofs[number], audiences=[HERE], bundles=BUNDLES, now=NOON, seen=cache)
        else:
            proof.verify(SVIDS[0].token, proofs[number], audiences=[HERE], bundles=BUNDLES, now=NOON, seen=cache)
            opened.add(number)
    assert len(cache) == len(opened)
