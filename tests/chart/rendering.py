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


@cache
def objects(case: str) -> tuple[dict[str, Any], ...]:
    """Every object of a case."""
    return tuple(
        found
        for name, text in render(values(case)).items()
        if name.endswith(".yaml")
        for found in yaml.safe_load_all(text)
        if found
    )


def pods(case: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each workload and the pod it makes."""
    for found in objects(case):
        if found["kind"] in {"StatefulSet", "DaemonSet", "Deployment"}:
            yield found["metadata"]["name"], found["spec"]["template"]


def of_kind(case: str, kind: str) -> dict[str, Any]:
    """The objects of one kind by name."""
    return {found["metadata"]["name"]: found for found in objects(case) if found["kind"] == kind}
