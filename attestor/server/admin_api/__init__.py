"""The operators' verbs, as JSON on the server's Unix socket: the root of operator power (traps 10).

Whoever may open the socket may do all of it; who that is, is decided by its mode and by the uid of the caller.
One file for each noun; each has `routes()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attestor.server.admin_api.authorities import Authorities
from attestor.server.admin_api.federation import FederationVerbs
from attestor.server.admin_api.instances import InstanceList
from attestor.server.admin_api.nodes import Nodes
from attestor.server.admin_api.revocations import RevocationVerbs
from attestor.server.admin_api.risks import RiskList
from attestor.server.admin_api.rules import Rules
from attestor.server.admission import Admission
from attestor.server.federation import Federation, Follower
from attestor.server.instances import Instances
from attestor.server.revocation import Revocations
from attestor.server.risks import Risks
from attestor.server.rule_hold import RuleHold
from attestor.server.rule_source import RuleSource
from ca.authority import Authority
from ca.revocation import Lists
from ca.rotation import Rotation
from ca.runtime.clock import Clock
from ca.runtime.database import Database
from ca.runtime.web import Route


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminApi:
    """One for each server process."""

    admission: Admission
    instances: Instances
    rules: RuleSource
    hold: RuleHold
    authority: Authority
    rotation: Rotation
    lists: Lists
    database: Database
    risks: Risks
    federation: Federation
    followers: Sequence[Follower]
    clock: Clock

    def routes(self) -> tuple[Route, ...]:
        """All of them."""
        authority, database, clock = self.authority, self.database, self.clock
        return (
            *Nodes(admission=self.admission, instances=self.instances, database=database, clock=clock).routes(),
            *Rules(rules=self.rules, hold=self.hold, settings=authority.settings, database=database).routes(),
            *Authorities(authority=authority, rotation=self.rotation, database=database, clock=clock).routes(),
            *RevocationVerbs(
                revocations=Revocations(database, self.instances), lists=self.lists, authority=authority, clock=clock
            ).routes(),
            *RiskList(self.risks).routes(),
            *FederationVerbs(federation=self.federation, followers=self.followers, clock=clock).routes(),
            *InstanceList(authority=authority, database=database, clock=clock).routes(),
        )
