"""What the attestor server's metrics say of its present state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from attestor.server.federation import Federation
from attestor.server.instances import Instances
from attestor.server.rule_source import RuleSource
from attestor.server.store import nodes
from attestor.server.store.federation import StoredDomain
from ca.authority import Authority
from ca.profiles.prepared import Kind
from ca.revocation import Lists
from ca.runtime.database import Database
from ca.runtime.metrics import Metrics
from ca.store import State

_SIGNS: Mapping[Kind, str] = {Kind.ROOT: "root", Kind.ISSUING: "x509", Kind.JWT: "jwt", Kind.WIT: "wit"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """Set anew by each `tick`."""

    metrics: Metrics
    database: Database
    instances: Instances
    rules: RuleSource
    authority: Authority
    lists: Lists
    federation: Federation

    async def tick(self, now: datetime) -> None:
        """Look at everything. Raises Unavailable."""
        found = await self.database.read(nodes.admitted)
        silent = sum(self.instances.is_silent(node, now) for node in found)
        metrics = self.metrics
        metrics.set("sojourn_nodes", len(found) - silent, state="connected")
        metrics.set("sojourn_nodes", silent, state="silent")
        metrics.set("sojourn_rules", len(self.rules.current.rules))
        self._authorities()
        await self._lists()
        await self._federation()
        bundle = self.authority.bundle(now)
        metrics.set("sojourn_bundle_sequence", bundle.sequence or 0)
        metrics.set("sojourn_bundle_authorities", len(bundle.x509_authorities), kind="x509")
        metrics.set("sojourn_bundle_authorities", len(bundle.jwt_authorities), kind="jwt")
        metrics.set("sojourn_bundle_authorities", len(bundle.wit_authorities), kind="wit")

    def _authorities(self) -> None:
        own = [one for one in self.authority.believed if one.server == self.authority.settings.server]
        for kind, label in _SIGNS.items():
            active = [one for one in own if (one.kind, one.state) == (kind, State.ACTIVE)]
            if not active and kind is Kind.ROOT:
                continue  # it is kept elsewhere
            ends = active[0].not_after.timestamp() if active else 0.0  # nothing signs: an alarm that goes off
            self.metrics.set("sojourn_ca_authority_expiry_timestamp_seconds", ends, kind=label)

    async def _lists(self) -> None:
        metrics = self.metrics
        metrics.set("sojourn_leaves_revoked", await self.lists.named())
        for kind in (Kind.ROOT, Kind.ISSUING):
            newest = self.lists.newest(kind)
            if newest is not None:
                metrics.set("sojourn_revocation_list_number", newest.number, kind=kind)
                metrics.set("sojourn_revocation_list_bytes", len(newest.der), kind=kind)
                until = newest.next_update.timestamp()
                metrics.set("sojourn_revocation_list_next_update_timestamp_seconds", until, kind=kind)

    async def _federation(self) -> None:
        stored = {one.trust_domain: one for one in await self.federation.stored()}
        followed = [stored.get(one.trust_domain) for one in self.federation.endpoints]
        states = Counter(self._state(one) for one in followed)
        for state in ("fresh", "stale", "none", "refused"):
            self.metrics.set("sojourn_federated_domains", states[state], state=state)
        times = [one.fetched_at.timestamp() if one and one.fetched_at else 0.0 for one in followed]
        self.metrics.set("sojourn_federation_oldest_success_timestamp_seconds", min(times, default=0.0))

    def _state(self, one: StoredDomain | None) -> str:
        if one is None or one.document is None:
            return "none"
        if one.trust_domain in self.federation.refused:
            return "refused"
        return "stale" if one.failures or one.trouble else "fresh"
