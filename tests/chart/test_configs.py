"""What the chart writes is what the processes read: each rendered file goes through the real parser."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestor.node_agent.settings import NodeAgentSettings
from attestor.rules.read import read_rules
from attestor.server.settings import ServerSettings
from broker.settings import BrokerSettings
from ca.runtime.settings import loads
from chart.rendering import names, of_kind, pods

CASE = pytest.mark.parametrize("case", names())
MODELS: dict[str, Any] = {
    "attestor-server.yaml": ServerSettings,
    "node-agent.yaml": NodeAgentSettings,
    "broker.yaml": BrokerSettings,
}


def files(case: str) -> dict[str, str]:
    """Every file of every ConfigMap."""
    return {name: text for found in of_kind(case, "ConfigMap").values() for name, text in found["data"].items()}


@CASE
def test_every_process_reads_its_settings(case: str) -> None:
    """Nothing unknown in it, nothing missing."""
    found = {name: text for name, text in files(case).items() if name in MODELS}
    assert len(found) == len(list(pods(case)))
    for name, text in found.items():
        assert loads(text, name, MODELS[name])


@CASE
def test_the_rules_are_read_under_the_servers_own_terms(case: str) -> None:
    """As the server will when it starts."""
    found = files(case)
    settings: ServerSettings = loads(found["attestor-server.yaml"], "attestor-server.yaml", ServerSettings)
    rules = read_rules([("rules.yaml", found["rules.yaml"])], settings.terms())
    assert len(rules.rules) == len(yaml.safe_load(found["rules.yaml"])["rules"])


def test_direct_attestation_is_asked_for() -> None:
    """With the audience its pods' tokens are made for; else nobody attests without a node agent."""
    for case, wanted in (("default", False), ("direct", True)):
        settings: ServerSettings = loads(files(case)["attestor-server.yaml"], "attestor-server.yaml", ServerSettings)
        (cluster,) = settings.clusters
        assert settings.direct is wanted
        assert cluster.pod_audience == ("sojourn-prod" if wanted else "sojourn")
        assert bool(cluster.node_agents) is not wanted


def test_a_server_is_called_after_its_pod() -> None:
    """No `name` is written: the process takes the host's, which in a StatefulSet is the pod's and stays the same."""
    settings: ServerSettings = loads(files("several")["attestor-server.yaml"], "attestor-server.yaml", ServerSettings)
    assert settings.name is None
    assert settings.server_name == socket.gethostname().lower()
    for name, pod in pods("several"):
        assert "hostname" not in pod["spec"], name
        assert not pod["spec"].get("setHostnameAsFQDN"), name


@CASE
def test_every_path_in_the_settings_is_mounted(case: str) -> None:
    """A folder of settings, state or sockets that nobody mounts would not be there, or could not be written."""
    for name, pod in pods(case):
        (container,) = pod["spec"]["containers"]
        mounts = [Path(one["mountPath"]) for one in container["volumeMounts"]]
        settings = yaml.safe_load(files(case)[Path(container["command"][-1]).name])
        for path in _paths(settings):
            assert any(path.is_relative_to(mount) for mount in mounts), f"{name}: {path}"


def _paths(tree: Any) -> list[Path]:
    if isinstance(tree, dict):
        return [path for value in tree.values() for path in _paths(value)]
    if isinstance(tree, list):
        return [path for value in tree for path in _paths(value)]
    text = str(tree)
    for beginning in ("file:", "sqlite:", "unix://"):
        text = text.removeprefix(beginning)
    return [Path(text)] if text.startswith("/") and not text.startswith("//") else []
