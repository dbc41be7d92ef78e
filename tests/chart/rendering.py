"""The chart, rendered by Helm itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

from house.tree import ROOT

CHART = ROOT / "helm"
CASES = Path(__file__).parent / "cases"


@cache
def names() -> tuple[str, ...]:
    """Every file of values the chart is tried with; `default` is none."""
    return ("default", *sorted(path.stem for path in CASES.glob("*.yaml")))


def values(case: str) -> dict[str, Any] | None:
    """The values of a case."""
    if case == "default":
        return None
    found: dict[str, Any] = yaml.safe_load((CASES / f"{case}.yaml").read_text())
    return found


def render(given: Mapping[str, Any] | None) -> dict[str, str]:
    """Each template's text, by its path in the chart."""
    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(None if given is None else dict(given), name="demo", namespace="trust")
    return {name.removeprefix("sojourn/templates/"): text for name, text in rendered.items()}


def read(given: Mapping[str, Any] | None) -> tuple[str, list[dict[str, Any]]]:
    """The notes, and every object."""
    rendered = render(given)
    files = [text for name, text in rendered.items() if name.endswith(".yaml")]
    return rendered["NOTES.txt"], [found for text in files for found in yaml.safe_load_all(text) if found]


@cache
def objects(case: str) -> tuple[dict[str, Any], ...]:
    """Every object of a case."""
    return tuple(read(values(case))[1])


def pods(case: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each workload and the pod it makes."""
    for found in objects(case):
        if found["kind"] in {"StatefulSet", "DaemonSet", "Deployment"}:
            yield found["metadata"]["name"], found["spec"]["template"]


def of_kind(case: str, kind: str) -> dict[str, Any]:
    """The objects of one kind by name."""
    return {found["metadata"]["name"]: found for found in objects(case) if found["kind"] == kind}
