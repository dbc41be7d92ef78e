"""Why a process gets what it gets: what each source said, where it is, whom it descends from, what rules make of it."""

from __future__ import annotations

import os

from attestor.methods.workload.cgroup import Cgroup
from attestor.node_agent.attest import Attestor
from attestor.node_agent.cgroups import open_cgroup
from attestor.node_agent.held import Held
from attestor.node_agent.holdings import Holdings
from attestor.node_agent.peer import Findings
from attestor.selector import texts
from attestor.wire.admin import IdentityView, UnmatchedView
from attestor.wire.attestation import Entitlement, Identity
from attestor.wire.held import AncestorView, EnclosureView, ProcessExplained, SourceView


def explained(
    pid: int,
    findings: Findings,
    known: Held | None,
    entitlement: Entitlement,
    *,
    holdings: Holdings,
    attestor: Attestor,
) -> ProcessExplained:
    """The answer to `explain`."""
    return ProcessExplained(
        pid=pid,
        instance=known.instance if known else "",
        selectors=texts(findings.selectors | holdings.inherited(findings)),
        strength=findings.strength,
        sources=[_source(name, findings) for name in attestor.sources],
        within=[_enclosure(str(kind), cgroup, holdings) for kind, cgroup in findings.within],
        ancestors=[_ancestor(one) for one in holdings.parents(findings)],
        identities=[_identity(one) for one in entitlement.identities],
        unmatched=[UnmatchedView(rule=one.rule, reason=one.reason) for one in entitlement.unmatched],
    )


def _source(name: str, findings: Findings) -> SourceView:
    found = [one for one in findings.selectors if one.type == name]
    return SourceView(name=name, selectors=texts(found), unsaid=dict(findings.unsaid).get(name, ""))


def _enclosure(kind: str, cgroup: Cgroup, holdings: Holdings) -> EnclosureView:
    opened, known = open_cgroup(cgroup), holdings.enclosure(cgroup)
    if opened is not None:
        os.close(opened[1])
    return EnclosureView(
        kind=kind,
        cgroup=cgroup.path,
        version=1 if cgroup.controllers else 2,
        watched=opened is not None,
        instance=known.instance if known and known.counter else "",
    )


def _ancestor(one: Held) -> AncestorView:
    return AncestorView(pid=one.name.pid, instance=one.instance, spiffe_ids=[str(each.id) for each in one.identities])


def _identity(one: Identity) -> IdentityView:
    return IdentityView(
        spiffe_id=str(one.id),
        rule=one.rule,
        hint=one.hint,
        bind=one.bind,
        x509_ttl_seconds=int(one.x509_ttl.total_seconds()),
        jwt_ttl_seconds=int(one.jwt_ttl.total_seconds()),
        dns_names=list(one.dns_names),
        audiences=list(one.audiences),
        federates_with=list(one.federates_with),
    )
