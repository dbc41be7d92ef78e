"""Bodies of /v1/audit: receipts in their chains, enough to verify them without us."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints

from broker.model.receipt import Entry, Receipt
from broker.wire.body import Page, Stamp, Told

_HASH = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class EntryTold(Told):
    """One entry of one writer's chain; `receipt` is exactly what was hashed, in its canonical form."""

    writer: Stamp
    number: Annotated[int, Field(ge=1)]
    previous: _HASH
    hash: _HASH
    receipt: dict[str, Any]

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """The body of `entry`."""
        return cls(
            writer=entry.writer,
            number=entry.number,
            previous=entry.previous,
            hash=entry.hash,
            receipt=entry.receipt.to_json(),
        )

    def to_entry(self) -> Entry:
        """The value, to be verified. Raises Malformed: what is told is no receipt."""
        return Entry(
            writer=self.writer,
            number=self.number,
            previous=self.previous,
            hash=self.hash,
            receipt=Receipt.from_json(self.receipt),
        )


class EntryPage(Page[EntryTold]):
    """Entries of one writer, in order."""


class HeadTold(Told):
    """Where a writer's chain ends; kept elsewhere it shows a cut tail.

    `after` and `after_hash` are the entry before the first that is kept: 0 and zeros when that is the chain's first.
    """

    writer: Stamp
    number: Annotated[int, Field(ge=0)]
    hash: _HASH
    after: Annotated[int, Field(ge=0)] = 0
    after_hash: _HASH = "0" * 64


class HeadPage(Page[HeadTold]):
    """The chains there are."""
