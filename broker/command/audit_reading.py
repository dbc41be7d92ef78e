"""The audit as it is read from outside: every chain to its end, judged entry by entry, and kept in a file.

Verification here believes nothing a broker says but the entries themselves: each hash is computed anew. The heads it
told before the reading must be among them, so a tail cut or rewritten meanwhile is seen.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from pydantic import ValidationError

from broker.audit.chain import Head
from broker.audit.verify import Broken, Fault, verify
from broker.client.broker import Broker
from broker.model.receipt import Entry, ReceiptKind
from broker.wire.audit import EntryTold
from ca.errors import Malformed

_PAGE = 1000
_CUT = '{"cut": '


class Verifier:
    """Judges entries of many writers as they come."""

    def __init__(self, known: Iterable[Head] = (), cuts: Iterable[Head] = ()) -> None:
        """`known` are heads that must be met; `cuts` the entries after which what is kept of a chain begins."""
        self._known = {head.writer: head for head in known}
        self.cuts = {head.writer: head for head in cuts if head.number}
        self._ends = dict(self.cuts)
        self._before: list[tuple[Entry, Head]] = []
        self._said: dict[str, Head] = {}
        self.entries = 0

    @property
    def unbacked(self) -> Sequence[str]:
        """Writers whose chain begins where no receipt says it was cut: by the broker's word alone."""
        return sorted(writer for writer in self.cuts if writer not in self._said)

    def take(self, told: Sequence[EntryTold]) -> None:
        """Judge the following entries. Raises Broken: names the first bad one."""
        for writer, group in groupby(told, key=lambda one: one.writer):
            entries = [_entry(one) for one in group]
            end = verify(entries, start=self._ends.get(writer))
            assert end is not None
            self._ends[writer] = end
            self.entries += len(entries)
            known = self._known.get(writer)
            for entry in entries:
                if entry.receipt.kind is ReceiptKind.BROKER_STARTED:
                    self._before += _named(entry)
                if entry.receipt.kind is ReceiptKind.AUDIT_CUT:
                    self._take_cut(entry)
                if known is not None and entry.number == known.number and entry.hash != known.hash:
                    words = "is not the entry that was known to stand here"
                    raise Broken(writer, entry.number, Fault.FORKED, words)

    def _take_cut(self, entry: Entry) -> None:
        """What says where a chain was cut, the furthest of them. Raises Broken: it says so in no known form."""
        body = entry.receipt.body
        try:
            cut = Head(writer=str(body["writer"]), number=int(body["number"]), hash=str(body["hash"]))
        except (KeyError, TypeError, ValueError):
            words = "says where a chain was cut in no known form"
            raise Broken(entry.writer, entry.number, Fault.EDITED, words) from None
        if cut.number > self._said.get(cut.writer, Head.empty(cut.writer)).number:
            self._said[cut.writer] = cut

    def finish(self) -> Sequence[Head]:
        """Where each chain ends. Raises Broken: one ends before a head that is known, or begins where none was cut."""
        for cut in self._said.values():
            if self.cuts.get(cut.writer) != cut:
                words = f"is not where a receipt says the chain was cut, which is {cut.number}"
                begins = self.cuts.get(cut.writer, Head.empty(cut.writer)).number
                raise Broken(cut.writer, begins, Fault.FORKED, words)
        for known in self._known.values():
            end = self._ends.get(known.writer, Head.empty(known.writer))
            if end.number < known.number:
                words = f"is missing: entry {known.number} was known, the rest was cut"
                raise Broken(known.writer, end.number + 1, Fault.CUT, words)
        for entry, before in self._before:
            end = self._ends.get(before.writer, Head.empty(before.writer))
            if end.number < before.number or (end.number == before.number and end.hash != before.hash):
                words = (
                    f"ends otherwise than `{entry.writer}` saw when it began: there entry {before.number} was its last"
                )
                raise Broken(before.writer, before.number, Fault.CUT, words)
        return sorted(self._ends.values(), key=lambda head: head.writer)


def _named(entry: Entry) -> list[tuple[Entry, Head]]:
    """The ends of other chains that a writer saw when it began."""
    found: list[tuple[Entry, Head]] = []
    for writer, said in dict(entry.receipt.body.get("after", {})).items():
        number, _, digest = str(said).partition(":")
        if not number.isascii() or not number.isdigit():
            raise Broken(entry.writer, entry.number, Fault.EDITED, "names the chains before it in no known form")
        found.append((entry, Head(writer=str(writer), number=int(number), hash=digest)))
    return found


def _entry(told: EntryTold) -> Entry:
    try:
        return told.to_entry()
    except Malformed as error:
        raise Broken(told.writer, told.number, Fault.EDITED, f"can't have been written so: {error}") from error


async def heads(broker: Broker) -> Sequence[Head]:
    """Where the broker says its chains end."""
    return [end for end, _ in await both_ends(broker)]


async def both_ends(broker: Broker) -> Sequence[tuple[Head, Head]]:
    """Where the broker says its chains end, and the entry after which it keeps them."""
    return [
        (
            Head(writer=one.writer, number=one.number, hash=one.hash),
            Head(writer=one.writer, number=one.after, hash=one.after_hash),
        )
        for one in (await broker.heads()).items
    ]


async def pages(broker: Broker) -> AsyncIterator[Sequence[EntryTold]]:
    """The whole audit, writer by writer."""
    after: str | None = None
    while True:
        page = await broker.audit(after, limit=_PAGE)
        yield page.items
        after = page.next
        if after is None:
            return


async def newest(broker: Broker, count: int) -> Sequence[EntryTold]:
    """The newest entries of all chains together, oldest first."""
    found: list[EntryTold] = []
    for head in await heads(broker):
        found += await following(broker, head.writer, max(0, head.number - count), limit=count)
    return sorted(found, key=lambda one: (str(one.receipt.get("at")), one.writer, one.number))[-count:]


async def following(broker: Broker, writer: str, number: int, *, limit: int = _PAGE) -> Sequence[EntryTold]:
    """What stands behind an entry of one chain."""
    page = await broker.audit(f"{writer}:{number}", limit=max(1, min(limit, _PAGE)))
    return [one for one in page.items if one.writer == writer]


def exported(path: Path) -> Iterator[Sequence[EntryTold]]:
    """The entries of an export, line by line. Raises Malformed: a line is no entry."""
    for number, line in _lines(path):
        if not line.startswith(_CUT):
            yield [_line(path, number, line)]


def exported_cuts(path: Path) -> Sequence[Head]:
    """Where the chains of an export begin; those are its first lines. Raises Malformed."""
    found: list[Head] = []
    for number, line in _lines(path):
        if not line.startswith(_CUT):
            break
        try:
            found.append(Head(**json.loads(line)["cut"]))
        except (ValueError, TypeError, KeyError):
            raise Malformed(f"{path}:{number}: not the beginning of a chain") from None
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from enumerate(file, 1)
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed(f"can't read the export `{path}`") from error


def _line(path: Path, number: int, line: str) -> EntryTold:
    try:
        return EntryTold.model_validate_json(line)
    except ValidationError:
        raise Malformed(f"{path}:{number}: not an entry of an audit") from None


def written_cut(cut: Head) -> str:
    """A line before the entries: of this chain what is kept begins after this entry."""
    return _CUT + json.dumps({"writer": cut.writer, "number": cut.number, "hash": cut.hash}) + "}\n"


def written(told: EntryTold) -> str:
    """One line of an export."""
    return json.dumps(told.model_dump(mode="json"), ensure_ascii=False) + "\n"
