"""`make bench`: every hot path beside its raw limit, measured in the same run.

python -m tests.bench                       all of it, in about four minutes
python -m tests.bench --only credentials    one of it
python -m tests.bench --only peers          beside an OpenBao, which is brought by `make bench-peers` alone
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

BENCHES = (
    "store",
    "svids",
    "first_svid",
    "rules",
    "decisions",
    "credentials",
    "kinds",
    "endings",
    "fences",
    "restart",
    "streams",
    "revocations",
    "handshakes",
    "rotation",
)


APART = ("crowds", "peers")
"""Those that take minutes by themselves, or need what is not brought otherwise: only when asked for by name."""


def main() -> None:
    """Run, print, keep."""
    from bench.table import kept, machine, printed
    from bench.timing import now
    from ca.runtime import log
    from servers.standing import Place

    asked = argparse.ArgumentParser(prog="python -m tests.bench", description="every hot path beside its raw limit")
    asked.add_argument("--only", choices=(*BENCHES, *APART), action="append", help="this one alone; may be said again")
    asked.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json", help="where the run is kept")
    chosen = asked.parse_args()
    log.setup("bench", level="error", stream=sys.stderr, json=False)
    Place.always_on_disk = True
    about, rows = machine(), []
    for name in chosen.only or BENCHES:
        begun = now()
        print(f"{name} …", end=" ", flush=True, file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="sj-bench-", dir="/tmp") as folder:
            rows += asyncio.run(import_module(f"bench.{name}").measure(Path(folder)))
        print(f"{now() - begun:.0f} s", file=sys.stderr)
    print(f"{about['cores']} cores, {about['cpu']}, Linux {about['kernel']}, Python {about['python']}", end="")
    about["load_after"] = os.getloadavg()[0]
    print(f", load {about['load_before']:.1f} before and {about['load_after']:.1f} after\n\n{printed(rows)}")
    kept(chosen.json, about, rows)


if __name__ == "__main__":
    main()
