"""An operator's word that an authority is not to be trusted any more: what it moves, or why it can't be done.

Tainted first: nothing is signed by it, what it signed is replaced, and peers still believe it meanwhile. Revoked then:
peers are told to believe it no longer. An issuing authority goes with its root, because it is believed for its sake.
"""

from __future__ import annotations

from collections.abc import Collection

from ca.authority import Ring
from ca.errors import Conflict, NotFound
from ca.profiles.prepared import Kind
from ca.rotation.table import TRANSITIONS, Event, step
from ca.store import Move, State, StoredAuthority


def tainting(ring: Ring, key_id: bytes, gone: Collection[str] = ()) -> list[Move]:
    """What tainting this authority does, with those under it. `gone` names servers that are not heard of.

    Raises:
        NotFound: there is no such authority.
        Conflict: it, or one under it, signs at the moment; or the root's key is kept elsewhere.
    """
    moves: list[Move] = []
    for each in _with_those_under(ring, key_id):
        if each.state is State.TAINTED:
            continue
        if each.state is State.ACTIVE:
            if each.server not in gone:
                raise Conflict(_signs(ring, each))
            moves.append(step(each, Event.GIVE_UP))
            moves.append(Move(key_id=each.key_id, before=State.OLD, after=TRANSITIONS[State.OLD, Event.TAINT]))
            continue
        moves.append(step(each, Event.TAINT))
    return moves


def revoking(ring: Ring, key_id: bytes) -> list[Move]:
    """What revoking this tainted authority does, with those under it.

    Raises:
        NotFound: there is no such authority.
        Conflict: it is not tainted; it is an issuing authority, whose root is still believed; or the root's key is kept
            elsewhere.
    """
    found = _with_those_under(ring, key_id)
    if found[0].kind is Kind.ISSUING:
        if ring.get(found[0].issuer_key_id or b"") is None:
            raise Conflict(
                "an issuing authority is believed because of its root, and that is kept elsewhere: have whoever holds"
                " its key revoke the certificate; tainted, it signs nothing and what it signed is replaced"
            )
        raise Conflict("an issuing authority is believed because of its root: taint and revoke that root")
    return [step(each, Event.REVOKE) for each in found]


def forgetting(ring: Ring, server: str, gone: Collection[str]) -> list[Move]:
    """What forgetting a server does that is gone for good: nothing of it will sign again.

    Raises:
        NotFound: nothing of that server is believed.
        Conflict: it is alive, or is this one.
    """
    found = [each for each in ring.authorities if each.server == server]
    if not found:
        raise NotFound(f"nothing of a server `{ascii(server[:80])[1:-1]}` is believed")
    if server not in gone:
        raise Conflict(f"the server `{server}` is alive: stop it first")
    return [step(each, Event.GIVE_UP) for each in found if each.state in {State.PREPARED, State.ACTIVE}]


def _with_those_under(ring: Ring, key_id: bytes) -> list[StoredAuthority]:
    authority = ring.get(key_id)
    if authority is None:
        if key_id in ring.anchor_key_ids:
            raise Conflict(
                f"the key of the root `{key_id.hex()}` is kept elsewhere: whoever holds it must revoke it; then take it"
                " out of the file `upstream.bundle` names, and it leaves the bundle of this trust domain"
            )
        raise NotFound(f"there is no authority `{key_id.hex()}` that is still believed")
    return [authority, *(each for each in ring.authorities if each.issuer_key_id == key_id)]


def _signs(ring: Ring, authority: StoredAuthority) -> str:
    name = authority.key_id.hex()
    if authority.server == ring.settings.server:
        return f"the {authority.kind} authority `{name}` signs at the moment: rotate it first"
    return (
        f"the {authority.kind} authority `{name}` signs at the moment on the server `{authority.server}`, which is"
        " alive: rotate it there first, or stop that server"
    )
