"""sojourn doctor: this machine, and every target of the broker that runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from broker.command.options import Where, operator_options
from ca.runtime.terminal import Console, Exit, command_options

if TYPE_CHECKING:
    from broker.wire.targets import FindingTold


@click.command()
@click.option("--strict", is_flag=True, help="Exit with 1 when something is not well.")
@operator_options
@command_options
async def doctor(console: Console, where: Where, *, strict: bool) -> int:
    """Check this machine and, when a broker runs, each of its targets with a probe user; each finding with its fix.

    Example: sojourn doctor --strict
    """
    from broker.client.address import places_of
    from broker.command import tables
    from broker.doctor import examine
    from broker.wire.targets import FindingTold
    from ca.runtime.clock import SystemClock

    found = [
        ("this machine", FindingTold(name=one.name, well=one.well, detail=one.detail, fix=one.fix))
        for one in examine(places_of(where.state), SystemClock())
    ]
    found += await _targets(console, where)
    tables.findings(console, found)
    return Exit.FAILED if strict and not all(one.well for _, one in found) else Exit.OK


def _store(unreadable: int) -> FindingTold:
    from broker.wire.targets import FindingTold

    detail = f"rows that can't be read: {unreadable}" if unreadable else "every row that was met can be read"
    fix = "sojourn lease list --quarantined names them; mend or restore the store" if unreadable else None
    return FindingTold(name="store", well=not unreadable, detail=detail, fix=fix)


async def _targets(console: Console, where: Where) -> list[tuple[str, FindingTold]]:
    from attestor.client.errors import Unreachable
    from broker.command.doors import as_operator
    from broker.wire.targets import FindingTold

    found: list[tuple[str, FindingTold]] = []
    try:
        async with as_operator(where) as broker:
            found.append(("broker", _store(len((await broker.quarantined()).items))))
            for target in (await broker.targets()).items:
                with console.progress(f"checking {target.name}"):
                    told = await broker.check_target(target.name)
                found += [(f"target {target.name}", one) for one in told.findings]
    except Unreachable as error:
        return [*found, ("broker", FindingTold(name="reachable", well=False, detail=str(error), fix="sojourn up"))]
    return [("broker", FindingTold(name="reachable", well=True, detail="it answers")), *found]
