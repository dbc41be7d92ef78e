"""Where `broker/lifecycle` touches the outside or commits, and the fail-points that must stand around it.

An *effect* is a call of an engine's verb (every method of the protocols in `broker/engines/protocol.py` that is not
pure) or of a database's `write`. The law, for each statement that holds one:

    failpoint.reach("obtain.create.before")
    issued = await calls.call(engine.create(…))           one effect, in a plain statement
    failpoint.reach("obtain.create.after")

with nothing in between, a name that begins with the module's, used once; and no fail-point anywhere else. So the list
of points is the list of places a broker can die at, and nobody can forget one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from broker.engines import protocol
from house.tree import ROOT, parsed, shown

LIFECYCLE = ROOT / "broker" / "lifecycle"
PURE = frozenset({"plan", "guarantee"})
"""Methods of an engine that touch nothing."""

_POWERS = (protocol.Engine, protocol.Listing, protocol.Claimable, protocol.Checkable, protocol.Rotating)
VERBS = (
    frozenset(
        name for power in _POWERS for name, what in vars(power).items() if callable(what) and not name.startswith("_")
    )
    - PURE
)
_PLAIN = (ast.Expr, ast.Assign, ast.AnnAssign)


@dataclass
class Walk:
    """What was found in one module: its points in the order of the text, and what breaks the law."""

    stem: str
    points: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def walk(stem: str, tree: ast.Module) -> Walk:
    """Look at one module of the lifecycle."""
    found = Walk(stem)
    modules = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    paired: set[int] = set()
    for block in _blocks(tree):
        for place, statement in enumerate(block):
            effects = list(_effects(statement, modules))
            if effects:
                _judge(found, block, place, effects, paired)
    for node in ast.walk(tree):
        if _reached(node) is not None and id(node) not in paired:
            found.faults.append(f"{stem}:{node.lineno}: `{_reached(node)}` stands at no effect")  # type: ignore[attr-defined]
    twice = {name for name in found.points if found.points.count(name) > 1}
    found.faults += [f"{stem}: `{name}` is used twice" for name in sorted(twice)]
    return found


def _judge(found: Walk, block: Sequence[ast.stmt], place: int, effects: Sequence[ast.Call], paired: set[int]) -> None:
    where = f"{found.stem}:{effects[0].lineno}: `{ast.unparse(effects[0].func)}`"
    if len(effects) > 1 or not isinstance(block[place], _PLAIN):
        found.faults.append(f"{where}: an effect stands alone, in a plain statement")
        return
    before = block[place - 1] if place else None
    after = block[place + 1] if place + 1 < len(block) else None
    names = []
    for point, suffix in ((before, ".before"), (after, ".after")):
        call = point.value if isinstance(point, ast.Expr) else None
        name = _reached(call)
        if call is None or name is None or not name.endswith(suffix):
            found.faults.append(f"{where}: no fail-point `…{suffix}` right {suffix[1:]} it")
            continue
        paired.add(id(call))
        names.append(name)
        if name.partition(".")[0] != found.stem or name.count(".") != 2:
            found.faults.append(f"{where}: `{name}` is not called `{found.stem}.<what>{suffix}`")
    found.points += names
    if len({name.rpartition(".")[0] for name in names}) > 1:
        found.faults.append(f"{where}: the points around it have different names")


def _blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for part in ("body", "orelse", "finalbody"):
            block = getattr(node, part, None)
            if isinstance(block, list):
                yield block


def _effects(statement: ast.stmt, modules: set[str]) -> Iterator[ast.Call]:
    """Effects of this very statement; those in a block inside it belong to that block's statements."""
    pending: list[ast.AST] = [
        child for child in ast.iter_child_nodes(statement) if not isinstance(child, (ast.stmt, ast.ExceptHandler))
    ]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Call) and _is_effect(node.func, modules):
            yield node
        pending += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)]


def _is_effect(func: ast.expr, modules: set[str]) -> bool:
    if not isinstance(func, ast.Attribute) or (isinstance(func.value, ast.Name) and func.value.id in modules):
        return False
    return func.attr == "write" or func.attr in VERBS


def _reached(node: ast.AST | None) -> str | None:
    """The name of a `failpoint.reach("…")`."""
    if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoint.reach" and len(node.args) == 1):
        return None
    name = node.args[0]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else ""


def lifecycle() -> list[Path]:
    """The modules the law holds for."""
    return sorted(path for path in LIFECYCLE.rglob("*.py") if path.name != "__init__.py")


@cache
def all_points() -> tuple[str, ...]:
    """Every point of the lifecycle, module by module: what `tests/faults` kills a broker at."""
    return tuple(name for path in lifecycle() for name in walk(path.stem, parsed(path)).points)


def all_faults() -> list[str]:
    """Everything in the lifecycle that breaks the law."""
    return [f"{shown(path)}: {fault}" for path in lifecycle() for fault in walk(path.stem, parsed(path)).faults]
