"""An operator is told what each source said, where a process is and whom it descends from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from attestor.instance import Binding
from attestor.methods.workload.protocol import CantSay, Subject
from attestor.methods.workload.systemd import SystemdSource
from attestor.node_agent.attest import Attestor
from attestor.node_agent.explained import explained
from attestor.node_agent.peer import peer_of
from attestor.selector import Selector
from attestor.wire.attestation import Entitlement, Unmatched
from attestor.wire.held import ProcessExplained
from fakes.caller import Caller, caller
from fakes.cgroups import cgroup
from fakes.family import STRAIGHT, Child, parent
from fakes.issuer import identity
from fakes.workload import Agent, workload_api

UNIT = "/system.slice/agent.service"


class Torn:
    """A source that contradicts itself."""

    name = "k8s"

    async def selectors(self, subject: Subject) -> frozenset[Selector]:
        raise CantSay("its cgroups name more than one pod")


async def told(agent: Agent, one: Caller | Child) -> ProcessExplained:
    """What is said of a process."""
    attestor, peer = Attestor([SystemdSource(), Torn()]), peer_of(one.connection)
    findings = await attestor.attest(peer, for_people=True)
    known = next((held for held in agent.holdings if held.name == peer.name and held.counter), None)
    peer.close()
    gives = identity(agent.issuer.authority.id("/agent"))
    entitlement = Entitlement(instance="i", identities=(gives,), unmatched=(Unmatched(rule="r", reason="why"),))
    return explained(peer.pid, findings, known, entitlement, holdings=agent.holdings, attestor=attestor)


async def test_each_source_is_named_with_what_it_said_or_why_not(tmp_path: Path) -> None:
    """By its place in the table."""
    async with workload_api(tmp_path) as agent:
        with caller(tmp_path) as one, cgroup(f"2:{UNIT}", one):
            found = await told(agent, one)
    systemd, torn = found.sources
    assert (systemd.name, systemd.unsaid) == ("systemd", "")
    assert systemd.selectors == ["systemd:slice:system.slice", "systemd:unit:agent.service"] == found.selectors
    assert (torn.selectors, torn.unsaid) == ([], "its cgroups name more than one pod")
    assert [(one.spiffe_id, one.rule) for one in found.identities] == [("spiffe://example.org/agent", "rule")]
    assert [(one.rule, one.reason) for one in found.unmatched] == [("r", "why")]


async def test_what_it_could_be_bound_to_is_shown_with_its_instance(tmp_path: Path) -> None:
    """Before and after it is one."""
    async with workload_api(tmp_path) as agent:
        authority = agent.issuer.authority
        agent.issuer.given = lambda _: (replace(identity(authority.id("/agent")), bind=Binding.UNIT),)
        with caller(tmp_path) as one, caller(tmp_path) as other, cgroup(f"2:{UNIT}", one, other):
            (within,) = (await told(agent, one)).within
            assert (within.kind, within.cgroup, within.version) == ("unit", UNIT, 2)
            assert (within.watched, within.instance) == (True, "")
            async with agent.renewal.admitted(peer_of(one.connection)) as held:
                (within,) = (await told(agent, other)).within
                assert within.instance == held.instance
                assert (await told(agent, one)).instance == held.instance


async def test_its_parents_are_shown_with_what_they_hold(tmp_path: Path) -> None:
    """And the selectors that come of it."""
    async with workload_api(tmp_path) as agent:
        with parent(tmp_path, STRAIGHT) as agents:
            async with agent.renewal.admitted(peer_of(agents.caller.connection)) as held:
                with agents.child() as child:
                    found = await told(agent, child)
    (ancestor,) = found.ancestors
    assert (ancestor.pid, ancestor.instance) == (agents.caller.pid, held.instance)
    assert ancestor.spiffe_ids == ["spiffe://example.org/agent"]
    assert "parent:id:spiffe://example.org/agent" in found.selectors
