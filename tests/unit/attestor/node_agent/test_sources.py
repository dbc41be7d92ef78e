"""What settings name is asked, and nothing else; each look is counted."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from attestor.node_agent.peer import peer_of
from attestor.node_agent.settings import KubernetesSourceSettings, NodeAgentSettings
from attestor.node_agent.sources import open_attestor
from attestor.selector import texts
from ca.runtime.metrics import Metrics
from ca.spiffe.id import TrustDomain
from fakes.caller import caller
from fakes.cgroups import cgroup
from fakes.clock import ManualClock
from fakes.kubelet import kubelet

UID, CONTAINER = "2c48913c-b29f-11e7-9350-020968147796", "a" * 64
PLACE = f"2:/kube-root/kubepods/pod{UID}/{CONTAINER}"


def settings(folder: Path, *, systemd: bool = False, pods: KubernetesSourceSettings | None = None) -> NodeAgentSettings:
    """A node agent's."""
    return NodeAgentSettings(
        trust_domain=TrustDomain.parse("example.org"),
        state=folder,
        workload_socket=folder / "w",
        admin_socket=folder / "a",
        systemd=systemd,
        kubernetes=pods,
    )


async def test_the_user_is_always_looked_at_and_the_rest_when_asked_for(tmp_path: Path) -> None:
    """In the order of the table."""
    for chosen, sources in (
        (settings(tmp_path), ("unix",)),
        (settings(tmp_path, systemd=True), ("unix", "systemd")),
        (settings(tmp_path, systemd=True, pods=KubernetesSourceSettings()), ("unix", "systemd", "k8s")),
    ):
        async with AsyncExitStack() as stack:
            assert (await open_attestor(stack, chosen, ManualClock(), Metrics())).sources == sources


async def test_a_pod_is_found_as_settings_say_and_every_look_is_counted(tmp_path: Path) -> None:
    """With a kubelet below a cgroup of its own, which binding knows too."""
    metrics = Metrics()
    async with kubelet(tmp_path) as fake, AsyncExitStack() as stack:
        fake.add_pod("shop", "cart", {"main": CONTAINER}, uid=UID)
        pods = KubernetesSourceSettings(
            kubelet=fake.settings(), patience=timedelta(seconds=1), cgroup_parents=("kube-root",)
        )
        chosen = settings(tmp_path, systemd=True, pods=pods)
        attestor = await open_attestor(stack, chosen, ManualClock(), metrics)
        with caller(tmp_path) as one, cgroup(PLACE, one):
            peer = peer_of(one.connection)
            found = await attestor.attest(peer)
            peer.close()
    assert "k8s:ns:shop" in texts(found.selectors)
    assert [str(kind) for kind, _ in found.within] == ["container", "pod"]
    said = metrics.render().decode()
    for source, outcome in (("unix", "said"), ("systemd", "nothing"), ("k8s", "said")):
        assert f'sojourn_attestation_sources_total{{outcome="{outcome}",source="{source}"}} 1.0' in said
