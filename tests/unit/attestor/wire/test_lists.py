"""Revocation lists travel once for each stream, and which of them count is said every time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from attestor.wire import lists, node
from ca.errors import Malformed

UPDATE = node.Update(
    bundles=(), rules_version="v", live_counter=1, ended=frozenset(), withdrawn_authorities=frozenset(),
    beat=timedelta(seconds=1), grace=timedelta(seconds=15), revocation_lists=(b"one", b"other"),
)  # fmt: skip


def test_the_first_update_of_a_stream_carries_every_list() -> None:
    """A reader that holds nothing gets all of them, in their order."""
    message = node.encode_followed(UPDATE)
    assert list(message.update.revocation_lists) == [b"one", b"other"]
    assert node.decode_followed(message) == UPDATE


def test_a_later_update_carries_only_what_is_new() -> None:
    """What was replaced is neither carried nor believed any more."""
    later = replace(UPDATE, revocation_lists=(b"one", b"newer"))
    message = node.encode_followed(later, UPDATE.revocation_lists)
    assert list(message.update.revocation_lists) == [b"newer"]
    assert node.decode_followed(message, UPDATE.revocation_lists) == later


def test_an_update_of_something_else_carries_none() -> None:
    """Ten thousand streams are spared the same hundreds of kilobytes."""
    later = replace(UPDATE, rules_version="w", revocation_lists=(b"x" * 400_000,))
    assert node.encode_followed(later, later.revocation_lists).ByteSize() < 200


def test_a_list_that_was_never_carried_is_refused() -> None:
    """A reader that lacks one must not go on as if nothing were revoked."""
    message = node.encode_followed(UPDATE, UPDATE.revocation_lists)
    with pytest.raises(Malformed, match="not carried"):
        node.decode_followed(message, [b"one"])


def test_more_lists_than_a_domain_can_have_are_refused() -> None:
    """A server that lies must not fill the node's memory with names."""
    with pytest.raises(Malformed, match="more than 256"):
        lists.decode([b"one"], [lists.digest(b"one")] * 257, ())
