"""A broker can be killed wherever it matters: around each engine call and each commit of the lifecycle."""

from __future__ import annotations

import ast
import sys

import pytest

from house.failpoints import VERBS, all_faults, all_points, walk
from house.tree import ROOT, parsed

GOOD = """
from ca.runtime import failpoint

async def one(world, engine, calls, handle, unit):
    try:
        failpoint.reach("sample.create.before")
        issued = await calls.call(engine.create(handle))
        failpoint.reach("sample.create.after")
    except Exception:
        failpoint.reach("sample.commit.before")
        await world.database.write(unit)
        failpoint.reach("sample.commit.after")
        raise
    return issued
"""

REFUSED = {
    "no point before": ('        failpoint.reach("sample.create.before")\n', ""),
    "no point after": ('        failpoint.reach("sample.create.after")\n', ""),
    "none around a commit": ('        failpoint.reach("sample.commit.before")\n', ""),
    "something in between": ("        issued =", "        print(handle)\n        issued ="),
    "another name": ("sample.create.after", "sample.other.after"),
    "another module's name": ("sample.create", "elsewhere.create"),
    "the wrong way round": ("sample.create.before", "sample.create.after"),
    "the same name twice": ("sample.commit", "sample.create"),
    "a name that is computed": ('"sample.create.before"', '"sample" + ".create.before"'),
    "a point at no effect": ("    return issued", '    failpoint.reach("sample.idle.before")\n    return issued'),
    "an effect in a return": ("    return issued", "    return await world.database.write(unit)"),
    "an effect in a condition": ("    return issued", "    if await engine.names(handle):\n        return issued"),
    "an engine by another road": ("    return issued", '    await world.engines["one"].clean_up(handle)'),
    "an effect in a lambda": ("    return issued", "    later = lambda: engine.end_access(handle)"),
    "two effects at once": ("engine.create(handle)", "engine.create(await engine.occupy(handle))"),
}


DRIVERS = {"asyncpg", "botocore"}
"""What the oracle looks with."""


def test_every_effect_of_the_lifecycle_lies_between_its_points() -> None:
    """Every engine call, every commit."""
    assert all_faults() == []


def test_the_list_of_points_is_whole() -> None:
    """Unique names, in pairs."""
    points = all_points()
    assert len(points) == len(set(points)) > 60
    stems = [name.rpartition(".")[0] for name in points]
    assert sorted(points) == sorted(f"{stem}.{side}" for stem in set(stems) for side in ("after", "before"))


def test_no_verb_of_an_engine_is_forgotten() -> None:
    """They are read from the protocols; these are today's."""
    assert {
        "create", "replace", "renew", "occupy", "end_access", "clean_up", "names", "claim", "adopt", "check",
        "change_password", "opens", "cut_sessions",
    } == VERBS  # fmt: skip


def test_a_module_that_keeps_the_law_passes() -> None:
    """Its points are listed in the order of the text."""
    found = walk("sample", ast.parse(GOOD))
    assert found.faults == []
    names = [f"sample.{what}.{side}" for what in ("create", "commit") for side in ("before", "after")]
    assert sorted(found.points) == sorted(names)


@pytest.mark.parametrize("name", REFUSED)
def test_a_module_that_breaks_it_is_refused(name: str) -> None:
    """Each way to lose a point is seen."""
    old, new = REFUSED[name]
    assert GOOD.replace(old, new) != GOOD
    assert walk("sample", ast.parse(GOOD.replace(old, new))).faults != []


def test_a_module_function_is_no_engine() -> None:
    """`reconcile.claim(world)` is a call into another module, which has its own points."""
    source = (
        "from broker.lifecycle import reconcile\n\nasync def one(world):\n    return await reconcile.claim(world)\n"
    )
    assert walk("sample", ast.parse(source)).faults == []


def test_the_oracle_knows_nothing_of_ours() -> None:
    """What judges the product shares no line with it: the standard library, drivers, and its own eyes on servers."""
    folder = ROOT / "tests" / "faults"
    imported = {
        name.partition(".")[0]
        for path in (folder / "oracle.py", *sorted((folder / "eyes").glob("*.py")))
        for node in ast.walk(parsed(path))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."])
        if not name.startswith("faults.eyes.")
    }
    assert imported - set(sys.stdlib_module_names) == DRIVERS
