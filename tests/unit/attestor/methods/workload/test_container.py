"""A process is in the pod its cgroups say, and in none that it only says itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from attestor.methods.workload.cgroup import Cgroup, parse
from attestor.methods.workload.container import locate
from attestor.methods.workload.protocol import CantSay
from ca.errors import Malformed

VECTORS = Path(__file__).resolve().parents[4] / "vectors" / "cgroups"
PATHS = sorted(VECTORS.glob("*.txt"))


def build() -> Any:
    """The module that made them."""
    spec = importlib.util.spec_from_file_location("cgroup_vectors", VECTORS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MADE = build()


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_a_vector_becomes_what_its_name_says(path: Path) -> None:
    """That pod, that container, outside of any, or refused."""
    verdict = path.stem.partition("_")[0]
    if verdict == "refused":
        with pytest.raises((CantSay, Malformed)):
            locate(parse(path.read_bytes()))
        return
    found = locate(parse(path.read_bytes()))
    assert (found is None) == (verdict == "outside")
    if found is not None:
        pod = MADE.STATIC if "static" in path.stem else MADE.POD
        assert found.container == MADE.CONTAINER
        assert found.pod == (pod if verdict == "pod" else None)


def test_the_vectors_are_what_build_makes() -> None:
    """Nobody edits one by hand, and all eighteen forms are there."""
    assert {path.name: path.read_bytes() for path in PATHS} == MADE.build()
    assert len(PATHS) >= 30


def test_its_cgroups_are_named_for_whoever_watches_them() -> None:
    """The container's, not the one a runtime made below it; version 2 before version 1."""
    uid, container = MADE.POD, MADE.CONTAINER
    pod = f"/kubepods/pod{uid}"
    found = locate(parse(f"4:memory:{pod}/{container}\n0::{pod}/{container}/container\n".encode()))
    assert found is not None
    assert found.container_cgroup == Cgroup((), f"{pod}/{container}")
    assert found.pod_cgroup == Cgroup((), pod)


def test_a_kubelet_below_a_cgroup_of_its_own_is_named_by_settings() -> None:
    """`--cgroup-root` of the kubelet: without the setting it is nobody's."""
    text = f"0::/kube-root/kubepods/pod{MADE.POD}/{MADE.CONTAINER}\n".encode()
    assert locate(parse(text)) is None
    found = locate(parse(text), parents={"kube-root"})
    assert found is not None
    assert found.pod == MADE.POD
