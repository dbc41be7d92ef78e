"""Messages between node agent and server, there and back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from attestor._proto import node_pb2 as pb
from attestor.instance import Binding, Strength, new_id
from attestor.selector import parse_all
from attestor.wire import node
from attestor.wire.attestation import Attestation, Entitlement, Identity, Unmatched
from ca.errors import Malformed
from ca.spiffe.id import SpiffeId, TrustDomain

ONE, OTHER = new_id(), new_id()
ID = SpiffeId.parse("spiffe://example.org/agent")
ATTESTATION = Attestation(
    instance=ONE,
    selectors=parse_all(["unix:uid:7", "unix:path:/a b:c"]),
    strength=Strength.SHARED_UID,
    counter=3,
    ancestors=(OTHER,),
)
BUNDLE = node.BundleDocument(trust_domain=TrustDomain.parse("example.org"), document=b"{}")


def test_values_survive_the_wire() -> None:
    """Decoding gives what was encoded."""
    admission = node.Admission(id=ID, chain=b"c", bundle=BUNDLE, selectors=parse_all(["node:name:n"]))
    assert node.decode_admission(node.encode_admission(admission)) == admission
    live = node.LiveSet(counter=4, instances=frozenset({ONE, OTHER}))
    assert node.decode_live(node.encode_live(live)) == live
    assert node.decode_resolve(node.encode_resolve([ATTESTATION])) == ((ATTESTATION,), False)
    assert node.decode_resolve(node.encode_resolve([ATTESTATION], explain=True)) == ((ATTESTATION,), True)
    item = node.SignItem(attestation=ATTESTATION, id=ID, public_key=b"k")
    assert node.decode_sign(node.encode_sign([item])) == (item,)
    jwt = node.JwtItem(attestation=ATTESTATION, id=ID, audience=("a", "b"))
    assert node.decode_sign_jwt(node.encode_sign_jwt(jwt)) == jwt
    results = (node.Signed(chain=b"c"), node.Refusal(code="not-entitled", reason="no"))
    assert node.decode_signed(node.encode_signed(results)) == results


def test_an_entitlement_survives_the_wire() -> None:
    """With its identities and the rules that gave nothing."""
    identity = Identity(
        id=ID,
        rule="r",
        hint="h",
        x509_ttl=timedelta(hours=1),
        jwt_ttl=timedelta(minutes=5),
        bind=Binding.PROCESS,
        dns_names=("a.b",),
        audiences=("x",),
    )
    told = Entitlement(instance=ONE, identities=(identity,), unmatched=(Unmatched(rule="q", reason="why"),))
    assert node.decode_entitlements(node.encode_entitlements([told], "v")) == ((told,), "v")


@pytest.mark.parametrize("step", [node.Beat(live_counter=7), node.Update(
    bundles=(BUNDLE,), rules_version="v", live_counter=7, ended=frozenset({ONE}),
    withdrawn_authorities=frozenset({b"k"}), beat=timedelta(seconds=1), grace=timedelta(seconds=15),
)])  # fmt: skip
def test_what_the_server_pushes_survives_the_wire(step: node.Update | node.Beat) -> None:
    """Updates and beats."""
    assert node.decode_followed(node.encode_followed(step)) == step


@pytest.mark.parametrize(
    "message",
    [
        pb.FollowRequest(),
        pb.FollowRequest(live=pb.LiveSet(instances=["short"])),
        pb.FollowRequest(live=pb.LiveSet(counter=2**60)),
    ],
)
def test_a_live_set_that_makes_no_sense_is_refused(message: pb.FollowRequest) -> None:
    """Absent, with an id that is none, with a counter no store can hold."""
    with pytest.raises(Malformed):
        node.decode_live(message)


def test_batches_and_keys_have_limits() -> None:
    """Nothing empty, nothing endless."""
    with pytest.raises(Malformed, match="1 to 100"):
        node.decode_resolve(pb.ResolveRequest())
    with pytest.raises(Malformed, match="1 to 100"):
        node.decode_sign(node.encode_sign([node.SignItem(attestation=ATTESTATION, id=ID, public_key=b"k")] * 101))
    for key in (b"", b"k" * 1025):
        with pytest.raises(Malformed, match="public key"):
            node.decode_sign(node.encode_sign([node.SignItem(attestation=ATTESTATION, id=ID, public_key=key)]))
    with pytest.raises(Malformed, match="audience"):
        node.decode_sign_jwt(node.encode_sign_jwt(node.JwtItem(attestation=ATTESTATION, id=ID, audience=("",))))


def test_a_token_is_in_no_repr() -> None:
    """What is handed over is not printed by accident."""
    assert "secret" not in repr(node.SignedJwt(token="secret"))
