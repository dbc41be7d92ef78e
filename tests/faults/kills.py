"""Random kills, on record: `make faults N=1000 [SEED=…] [ENGINES=postgres,…] [STORE=sqlite,…]`.

Worlds take turns over the engines and stores that are asked for; where a point has seldom been on record it is aimed
at first. Every broken promise is printed, kept in the record,
and makes the exit code 1; the folder of its world stays. In the end docs/reliability.md is drawn anew. Two of these may
run side by side.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import secrets
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from ca.runtime.clock import SystemClock
from faults import record
from faults.ground import GROUNDS
from faults.nursery import Nursery
from faults.record import Kill
from faults.synced import built, preloaded
from faults.worlds import Tally, World
from house.draw_reliability import main as draw
from servers.postgres import postgres

STORES = ("sqlite", "postgres", "synced")
"""A file, a server, and a file on a disk that loses what was not synced."""


async def run(wanted: int, seed: int, engines: list[str], stores: list[str], *, keep: bool) -> list[str]:
    """Every broken promise; empty is well."""
    kills: list[Kill] = []
    faults: list[str] = []
    clock = SystemClock()
    began = clock.boot()

    def told(judged: list[Kill]) -> None:
        kills.extend(judged)
        if keep:
            record.append(judged)

    tally: Tally = Counter((kill.engine, kill.store, kill.point) for kill in record.read())
    async with AsyncExitStack() as stack:
        nursery, losing = Nursery(), None
        stack.callback(nursery.close)
        if "synced" in stores:
            losing = Nursery(preloaded(built(Path(stack.enter_context(TemporaryDirectory())))))
            stack.callback(losing.close)
        grounds = {kind: await stack.enter_async_context(GROUNDS[kind]()) for kind in engines}
        shared = None
        if "postgres" in stores:
            shared = await stack.enter_async_context(postgres(options=("log_min_messages=error",), fresh=True))
        turns = itertools.cycle(itertools.product(stores, engines))
        for number, (store, engine) in enumerate(turns):
            if len(kills) >= wanted:
                break
            parent = losing if store == "synced" and losing else nursery
            there = shared if store == "postgres" else None
            world = World(parent, grounds[engine], there, engine, seed + number, tally, losing=parent is losing)
            await world.run(wanted - len(kills), told)
            for fault in world.faults:
                _say(f"seed {world.seed} {store} {engine}: {fault}")
            faults += world.faults
            rate = len(kills) / (clock.boot() - began)
            _say(f"{len(kills)} kills, {len(faults)} broken promises, {rate:.1f}/s")
    return faults


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    words.add_argument("--kills", type=int, default=1000)
    words.add_argument("--seed", type=int, default=None)
    words.add_argument("--engines", default=",".join(GROUNDS))
    words.add_argument("--stores", default=",".join(STORES))
    words.add_argument("--no-record", action="store_true", help="only look")
    said = words.parse_args()
    seed = secrets.randbits(31) if said.seed is None else said.seed
    _say(f"seed {seed}")
    found = run(said.kills, seed, said.engines.split(","), said.stores.split(","), keep=not said.no_record)
    broken = asyncio.run(found)
    if not said.no_record:
        draw(["--write"])
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
