"""py-spiffe's own integration tests, unmodified, against our Workload API: `make conformance DIR=<its checkout>`.

Their scripts start SPIRE; this starts a real `sojourn up` with the entries their tests expect instead: the trust domain
example.org, `/myservice` and `/myservice2` for the caller's uid with certificates of five seconds, and one of another
uid. Both projects of the checkout are run, with its own sources and what PyPI has of the rest.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from journeys.up import RunningUp, up

PROJECTS = ("spiffe", "spiffe-tls")
ROUNDS = 6
"""Two of their tests want the TLS alert of a server that refused the client and closed at once. The client, a thread of
the same process, is sending meanwhile, and may be told of a broken connection instead: so what failed is run again, and
the output says how often."""
RULES = """\
rules:
  - name: myservice
    when: ["unix:uid:{uid}"]
    spiffe_id: /myservice
    x509_ttl: 5s
  - name: myservice2
    when: ["unix:uid:{uid}"]
    spiffe_id: /myservice2
    x509_ttl: 5s
  - name: different-process
    when: ["unix:uid:{other}"]
    spiffe_id: /different-process
"""


async def judge(checkout: Path) -> int:
    """How many of the projects' test runs failed."""
    uid = os.getuid()
    async with up(rules=RULES.format(uid=uid, other=uid + 1), trust_domain="example.org") as running:
        codes = [await _run(checkout, project, running) for project in PROJECTS]
    return sum(code != 0 for code in codes)


async def _run(checkout: Path, project: str, running: RunningUp) -> int:
    """Their tests of one project: all of them once, then what failed, up to `ROUNDS` times."""
    for round_ in range(1, ROUNDS + 1):
        code = await _pytest(checkout, project, running, *(("--last-failed",) if round_ > 1 else ()))
        if code == 0:
            break
        sys.stdout.write(f"{project}: round {round_} of {ROUNDS} ended with exit code {code}\n")
        sys.stdout.flush()
    return code


async def _pytest(checkout: Path, project: str, running: RunningUp, *more: str) -> int:
    """With nothing of our configuration and nothing of ours on the path."""
    folder, home = checkout / project, running.places.state.parent
    command = (sys.executable, "-m", "pytest", "-c", str(folder / "pyproject.toml"), "-v", "-W", "ignore")
    process = await asyncio.create_subprocess_exec(
        *command,
        *("-o", f"cache_dir={home / project}", *more, str(folder / "tests" / "integration")),
        cwd=folder,
        env={
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join(str(checkout / one / "src") for one in PROJECTS),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SPIFFE_ENDPOINT_SOCKET": running.workload_api,
        },
    )
    return await process.wait()


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 when everything passed, 1 when something failed, 2 when there is nothing to run."""
    missing = [one for one in PROJECTS if not arguments or not (Path(arguments[0]) / one / "tests").is_dir()]
    if missing:
        sys.stderr.write("usage: make conformance DIR=<a checkout of HewlettPackard/py-spiffe>\n")
        return 2
    return min(1, asyncio.run(judge(Path(arguments[0]).resolve())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
