"""`make mutants`: who survived that was not on the list.

    python -m mutants.judge              every mutant; ends red when one survives that survivors.txt does not name
    python -m mutants.judge --write      the same, and takes those off the list that are dead by now
    python -m mutants.judge PATTERN …    only those of these names (`broker.lifecycle.renew*`), whatever the list says

mutmut makes the mutants (`[tool.mutmut]` in pyproject.toml says of what, and which tests judge them). It numbers them,
and a number moves with every edit; here a mutant is known by its function and by the line it changed. The list may only
shrink: `--write` never adds a line to it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from house.tree import ROOT

SURVIVORS = ROOT / "tests/mutants/survivors.txt"
_NAME = re.compile(r"^\s+(?P<name>\S+): (?P<state>survived|no tests|timeout|suspicious|segfault)$", re.MULTILINE)
_ALIVE = ("survived", "no tests")


def run(*patterns: str) -> None:
    """Make and try them; what was tried before and has not changed is not tried again."""
    subprocess.run([_mutmut(), "run", *patterns], cwd=ROOT, check=True)


def alive() -> Iterator[str]:
    """Each survivor as a line: its function, what stood there, what stands there in the mutant."""
    listed = subprocess.run([_mutmut(), "results"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for found in _NAME.finditer(listed):
        if found["state"] in _ALIVE:
            yield described(found["name"])


def described(name: str) -> str:
    """A mutant that keeps its name when others come and go."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    shown = get_diff_for_mutant(name)
    gone = " ".join(line[1:].strip() for line in shown.splitlines() if re.match(r"-(?!--)", line))
    came = " ".join(line[1:].strip() for line in shown.splitlines() if re.match(r"\+(?!\+\+)", line))
    function = re.sub(r"__mutmut_\d+$", "", name).replace("xǁ", "").replace("ǁ", ".").replace(".x_", ".")
    return f"{function}: `{gone}` → `{came}`"


def known() -> Counter[str]:
    """The survivors of the list."""
    return Counter(line for line in SURVIVORS.read_text().splitlines() if line and not line.startswith("#"))


def judge(found: Counter[str], *, write: bool) -> int:
    """Compare, tell, and shrink the list when asked; 1 when somebody is new."""
    listed = known()
    new, dead = found - listed, listed - found
    for line in sorted(new.elements()):
        print(f"survived, and is not on the list: {line}")
    print(f"{found.total()} survivors, {new.total()} of them new; {dead.total()} of the list are dead")
    if write and dead:
        heading = [line for line in SURVIVORS.read_text().splitlines() if line.startswith("#")]
        SURVIVORS.write_text("\n".join([*heading, *sorted((listed - dead).elements())]) + "\n")
    elif dead:
        print("take the dead off the list: make mutants WRITE=1")
    return int(bool(new))


def _mutmut() -> str:
    return str(Path(sys.executable).with_name("mutmut"))


def main(*arguments: str) -> int:
    """See the module."""
    os.chdir(ROOT)
    patterns = [argument for argument in arguments if not argument.startswith("-")]
    run(*patterns)
    if patterns:
        print("\n".join(sorted(alive())))
        return 0
    return judge(Counter(alive()), write="--write" in arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
