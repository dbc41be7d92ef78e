"""Law: whatever is done to a chain after it was written, the verifier finds the first entry that is not as written."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from broker.audit.chain import Head, after
from broker.audit.verify import Broken, verify
from broker.model.receipt import Entry, Receipt, ReceiptKind
from fakes.nouns import NOW

BODIES = st.lists(
    st.dictionaries(st.text(max_size=5), st.integers(0, 9) | st.text(max_size=5), max_size=3), min_size=1, max_size=12
)


def _chain(bodies: list[dict[str, object]]) -> list[Entry]:
    head, entries = Head.empty("broker-1"), []
    for body in bodies:
        entries.append(after(head, Receipt(kind=ReceiptKind.DECIDED, at=NOW, actor="a", body=body)))
        head = Head.of(entries[-1])
    return entries


@given(BODIES, st.data())
def test_any_edit_is_found_no_later_than_the_next_entry(bodies: list[dict[str, object]], data: st.DataObject) -> None:
    """One field of one entry changed: all before it still hold, and with a known head nothing slips through."""
    entries = _chain(bodies)
    place = data.draw(st.integers(0, len(entries) - 1))
    old = entries[place]
    changed = data.draw(
        st.sampled_from(
            [
                replace(old, hash="0" * 63 + "1"),
                replace(old, previous="1" * 64),
                replace(old, number=old.number + 1),
                replace(old, number=old.number - 1),
                replace(old, writer="broker-2"),
                replace(old, receipt=replace(old.receipt, actor="b")),
                replace(old, receipt=replace(old.receipt, body={**old.receipt.body, "new": 1})),
                replace(old, receipt=replace(old.receipt, kind=ReceiptKind.LEASE_CLOSED)),
            ]
        )
    )
    damaged = [*entries[:place], changed, *entries[place + 1 :]]
    found = _broken(damaged, Head.of(entries[-1]))
    assert found is not None
    assert verify(damaged[:place]) == (Head.of(entries[place - 1]) if place else None)
    assert found >= min(old.number, changed.number)


@given(BODIES, st.data())
def test_any_other_selection_or_order_is_found(bodies: list[dict[str, object]], data: st.DataObject) -> None:
    """Every subsequence and permutation that is not the chain itself is refused when its head is known."""
    entries = _chain(bodies)
    chosen = data.draw(st.lists(st.sampled_from(entries), max_size=len(entries) + 2))
    head = Head.of(entries[-1])
    if chosen == entries:
        assert verify(chosen, head=head) == head
    else:
        assert _broken(chosen, head) is not None


def _broken(entries: list[Entry], head: Head) -> int | None:
    try:
        verify(entries, head=head)
    except Broken as problem:
        return problem.number
    return None
