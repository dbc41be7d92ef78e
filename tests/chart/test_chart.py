"""The chart as Helm renders it: well formed for Kubernetes, and hardened whatever the values."""

from __future__ import annotations

import json
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest

from chart.rendering import CHART, names, objects, of_kind, pods, render

CASE = pytest.mark.parametrize("case", names())
KUBERNETES = ("1.28", "1.33", "1.37")
SPEAKS_FOR_THE_MACHINE = "demo-sojourn-node-agent"


def test_helm_finds_nothing_to_complain_of() -> None:
    """`helm lint --strict`; that there is no icon is not a fault."""
    found = helm.lint(CHART, strict=True)
    assert [one for one in found["messages"] if "icon" not in one["error"]] == []
    assert found["errors"] == []


@CASE
@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_fits_the_schema_of_kubernetes(case: str, version: str) -> None:
    """Strictly: a key that is not known is a fault."""
    assert objects(case)
    for found in objects(case):
        kubernetes_validate.validate(found, version, strict=True)


def test_the_schema_check_would_see_a_misspelt_key() -> None:
    """The test above can fail."""
    (found, *_) = of_kind("default", "Service").values()
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**found, "spec": {**found["spec"], "selectors": {}}}, "1.33", strict=True)


@CASE
def test_every_container_is_hardened(case: str) -> None:
    """No privilege can be gained, nothing can be written but mounts, and there is no capability to lose."""
    for name, pod in pods(case):
        spec = pod["spec"]
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "privileged" not in context, name
            assert not container["image"].endswith(":latest"), name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert not spec.get("hostNetwork"), name


@CASE
def test_only_the_node_agent_speaks_for_a_machine(case: str) -> None:
    """Another part has no number of the host, runs as nobody in particular, and mounts of the machine one folder."""
    for name, pod in pods(case):
        spec = pod["spec"]
        if name.endswith("node-agent"):
            assert spec["hostPID"] is True
            continue
        assert "hostPID" not in spec
        assert spec["securityContext"]["runAsNonRoot"] is True
        machine = [volume for volume in spec["volumes"] if "hostPath" in volume]
        assert [volume["name"] for volume in machine] == (["workload-api"] if name.endswith("broker") else [])
        mounts = {one["name"]: one for container in spec["containers"] for one in container["volumeMounts"]}
        assert all(mounts[volume["name"]]["readOnly"] for volume in machine)


@CASE
def test_nobody_may_more_than_is_said(case: str) -> None:
    """No wildcard, no secret, nothing written; `nodes/proxy`, which runs commands in pods, only where asked for."""
    for name, role in of_kind(case, "ClusterRole").items():
        for rule in role["rules"]:
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"]), name
            assert not {"secrets", "configmaps"} & set(rule["resources"]), name
            written = set(rule["verbs"]) - {"get", "list", "watch"}
            assert written == ({"create"} if rule["resources"] == ["tokenreviews"] else set()), name
            assert ("nodes/proxy" in rule["resources"]) is (case == "legacy" and "node-agent" in name)


@CASE
def test_the_broker_reaches_the_api_only_to_give_tokens(case: str) -> None:
    """In the namespaces that are named, for the accounts that are named; otherwise it has no token of its own."""
    wanted = {"shop": ["invoices-reader"], "books": ["clerk", "auditor"]} if case == "everything" else {}
    roles = [found for found in objects(case) if found["kind"] == "Role"]
    bindings = [found for found in objects(case) if found["kind"] == "RoleBinding"]
    assert {role["metadata"]["namespace"]: role["rules"][1]["resourceNames"] for role in roles} == wanted
    for role, binding in zip(roles, bindings, strict=True):
        assert [rule["resources"] for rule in role["rules"]] == [["secrets"], ["serviceaccounts/token"]]
        assert role["rules"][0]["verbs"] == ["create", "get", "list", "update", "delete"]
        assert role["rules"][1]["verbs"] == ["create"]
        assert binding["metadata"]["namespace"] == role["metadata"]["namespace"]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert [subject["name"] for subject in binding["subjects"]] == ["teller"]
    for name, pod in pods(case):
        if name.endswith("broker"):
            assert any(volume["name"] == "api" for volume in pod["spec"]["volumes"]) is bool(wanted)


@CASE
def test_what_selects_finds(case: str) -> None:
    """Every Service and every workload selects pods there are, by ports they have."""
    made = dict(pods(case))
    for name, service in of_kind(case, "Service").items():
        wanted = service["spec"]["selector"].items()
        (pod,) = [pod for pod in made.values() if wanted <= pod["metadata"]["labels"].items()]
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, name
    for found in objects(case):
        if found["kind"] in {"StatefulSet", "DaemonSet"}:
            wanted = found["spec"]["selector"]["matchLabels"].items()
            assert wanted <= found["spec"]["template"]["metadata"]["labels"].items()
        if found["kind"] == "StatefulSet":
            assert found["spec"]["serviceName"] in of_kind(case, "Service")


@CASE
def test_every_mount_has_its_volume(case: str) -> None:
    """And every service account that is named is made, unless somebody else makes it."""
    accounts = of_kind(case, "ServiceAccount")
    for found in objects(case):
        if found["kind"] not in {"StatefulSet", "DaemonSet"}:
            continue
        spec = found["spec"]["template"]["spec"]
        claimed = {one["metadata"]["name"] for one in found["spec"].get("volumeClaimTemplates", ())}
        there = {volume["name"] for volume in spec["volumes"]} | claimed
        assert {one["name"] for container in spec["containers"] for one in container["volumeMounts"]} == there
        assert spec["serviceAccountName"] in accounts or case == "everything"


@CASE
def test_metrics_have_a_service_of_their_own(case: str) -> None:
    """One for each part, headless, on the port of the health endpoint."""
    found = {name for name in of_kind(case, "Service") if name.endswith("-metrics")}
    assert found == {f"{name}-metrics" for name, _ in pods(case)}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trustDomain": "Example.org"}, "trustDomain"),
        ({"trustDomian": "example.org"}, "trustDomian"),
        ({"attestorServer": {"replicas": 2}}, "needs attestorServer.database.kind postgresql"),
        ({"attestorServer": {"database": {"kind": "postgresql"}}}, "attestorServer.database.url must be given"),
        ({"attestorServer": {"replicas": 0}}, "replicas"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"nodeAgent": {"socketPath": "/var/a/b", "statePath": "/var/a"}}, "must not be inside nodeAgent.statePath"),
        ({"nodeAgent": {"tolerations": "all"}}, "tolerations"),
        ({"broker": {"policies": {"readme.txt": "x"}}}, "policies"),
        ({"broker": {"serviceAccount": {"create": False}}}, "serviceAccount.name must be given"),
    ],
)
def test_bad_values_are_refused_with_a_sentence(given: dict[str, Any], words: str) -> None:
    """By the schema, or by the template that knows why."""
    with pytest.raises(helm.HelmError) as caught:
        render(given)
    assert words in str(caught.value)


def test_a_digest_is_taken_as_one() -> None:
    """`sha256:…` is not a tag."""
    found = render({"image": {"repository": "r/sojourn", "tag": "sha256:" + "0" * 64}})
    assert f"image: r/sojourn@sha256:{'0' * 64}" in found["broker/statefulset.yaml"]


def test_a_changed_setting_makes_new_pods() -> None:
    """By the checksum in their annotations."""
    before, after = render(None), render({"broker": {"config": {"reap_every": "2s"}}})
    assert before["broker/statefulset.yaml"] != after["broker/statefulset.yaml"]
    assert before["node-agent/daemonset.yaml"] == after["node-agent/daemonset.yaml"]


def test_the_schema_knows_every_value() -> None:
    """What stands in values.yaml, and nothing more, down to the parts."""
    with helm.Chart.load(CHART) as chart:
        known, schema = chart.values, chart.schema
    assert schema is not None
    assert set(known) == set(schema["properties"]) - {"global"}
    for part in ("attestorServer", "nodeAgent", "broker"):
        assert set(known[part]) == set(schema["properties"][part]["properties"]), part
    assert json.dumps(schema).count('"additionalProperties": false') > 10


def test_notes_warn_of_the_example_domain() -> None:
    """It can't be changed later."""
    assert "still the example's" in render(None)["NOTES.txt"]
    assert "still the example's" not in render({"trustDomain": "prod.example.com"})["NOTES.txt"]
