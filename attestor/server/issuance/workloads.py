"""Entitlement and signature for the instances of a node.

The rules are evaluated here each time, with the node's selectors as the *server* verified them: a node agent's word
counts for what it says about its own processes and for nothing else (traps 2). An instance is durable before the first
leaf that carries it exists, and (issuer, serial, instance) before each signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from attestor.errors import NotEntitled, Unobserved
from attestor.methods.node import NODE_METHODS
from attestor.methods.platform import PLATFORMS
from attestor.rules.evaluate import Entitled, Evaluation, Facts, Missed
from attestor.selector import Selectors
from attestor.server.instances import Instances
from attestor.server.issuance.leaves import Leaves
from attestor.server.issuance.personal import Personal, behind, lives
from attestor.server.pods import Believed, PodView
from attestor.server.rule_source import RuleSource
from attestor.server.store import instances as store
from attestor.server.store.instances import Given
from attestor.server.store.nodes import Node
from attestor.wire.attestation import Attestation, Entitlement, Identity, Unmatched
from attestor.wire.node import JwtItem, Refusal, Signed, SignItem, WitItem
from attestor.wire.task_identity import LONGEST_LEAF
from ca.errors import Denied, Problem
from ca.profiles.jwt import JwtRequest
from ca.profiles.wit import WitRequest
from ca.profiles.x509 import LeafRequest, read_public_key
from ca.runtime.database import Database, Transaction
from ca.runtime.metrics import Metrics
from ca.spiffe.id import SpiffeId

VERIFIED_HERE = frozenset({"node", *NODE_METHODS, *PLATFORMS})
"""Types of selectors only the server finds out; what a node agent says in their name is not heard."""

LINEAGE = frozenset({"ancestor", "parent"})
"""Types of selectors that name the identity of who started a process; held against what that one was given."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """An item that may be signed."""

    item: SignItem
    entitled: Entitled
    request: LeafRequest


class Workloads:
    """What a node may have for its instances."""

    def __init__(  # noqa: PLR0917 - one for each thing it stands on
        self,
        database: Database,
        leaves: Leaves,
        rules: RuleSource,
        instances: Instances,
        metrics: Metrics,
        pods: PodView,
        personal: Personal,
    ) -> None:
        self._database, self._leaves, self._rules = database, leaves, rules
        self._instances, self._metrics, self._pods = instances, metrics, pods
        self.personal = personal

    @property
    def rules_version(self) -> str:
        """Of the rules in force."""
        return self._rules.current.version

    def federates_with(self, node: Node) -> frozenset[str]:
        """The foreign trust domains any rule names that holds on the node; `*`: every one."""
        rules = [one for one in self._rules.evaluation.federating if one.holds_on(node.selectors)]
        return frozenset(domain for rule in rules for domain in rule.federates_with)

    async def resolve(
        self, node: Node, attestations: Sequence[Attestation], *, explain: bool = False
    ) -> tuple[list[Entitlement], str]:
        """What each is entitled to, and by which version of the rules; with `explain`, why the others give nothing."""
        evaluation = self._rules.evaluation
        believed = [_or_raise(one) for one in await self._believed(node, attestations)]
        heard = [one.attestation for one in believed]
        entitled = await self._entitlements(node, heard, evaluation)
        told = [
            self._told(one, found, evaluation.explain(facts).missed if explain else ())
            for one, (facts, found) in zip(heard, entitled, strict=True)
        ]
        if explain:
            told = [_doubted(one, each.doubt) for one, each in zip(told, believed, strict=True)]
        return told, evaluation.version

    async def sign(self, node: Node, items: Sequence[SignItem], now: datetime) -> list[Signed | Refusal]:
        """A leaf for each, or why not; one refused item does not touch the others. Raises Unobserved, Unavailable."""
        self._heard(node, now)
        judged = await self._judged(node, items, now)
        refused = await self._enter(node, [one for one in judged if isinstance(one, _Ready)], now)
        results = [refused.get(id(one), one) for one in judged]
        chains = await self._signed([one for one in results if isinstance(one, _Ready)], now)
        return [chains[id(one)] if isinstance(one, _Ready) else _refusal(one) for one in results]

    async def sign_jwt(self, node: Node, item: JwtItem, now: datetime) -> str:
        """A token. Raises NotEntitled, InstanceEnded, InstanceElsewhere, Unobserved, Denied, Unavailable."""
        attestation, entitled = await self._entitled(node, item.attestation, item.id, now)
        allowed = entitled.rule.audiences
        if allowed and not set(item.audience) <= set(allowed):
            raise Denied(f"the rule `{entitled.rule.name}` allows only the audiences {', '.join(sorted(allowed))}")
        await self._enter_one(node, attestation, entitled, now)
        ttl = lives(entitled, entitled.rule.jwt_ttl or self._leaves.authority.settings.jwt_ttl, now)
        request = JwtRequest(id=item.id, audience=item.audience, instance=attestation.instance, ttl=ttl)
        token = await self._leaves.sign_jwt(request, now)
        self._metrics.count("sojourn_svids_issued_total", kind="jwt")
        return token

    async def sign_wit(self, node: Node, item: WitItem, now: datetime) -> str:
        """A token for the key of the item. Raises what `sign_jwt` raises, and Malformed for a key that fits none."""
        attestation, entitled = await self._entitled(node, item.attestation, item.id, now)
        await self._enter_one(node, attestation, entitled, now)
        longest = self._leaves.authority.settings.wit_ttl
        ttl = lives(entitled, longest if entitled.ends_at is None else min(longest, LONGEST_LEAF), now)
        request = WitRequest(id=item.id, public_key=item.public_key, instance=attestation.instance, ttl=ttl)
        token = await self._leaves.sign_wit(request, now)
        self._metrics.count("sojourn_svids_issued_total", kind="wit")
        return token

    async def _entitled(
        self, node: Node, attestation: Attestation, wanted: SpiffeId, now: datetime
    ) -> tuple[Attestation, Entitled]:
        """What is believed of one instance, and the identity of it that is asked for."""
        self._heard(node, now)
        (believed,) = await self._believed(node, [attestation])
        heard = _or_raise(believed).attestation
        ((_, found),) = await self._entitlements(node, [heard], self._rules.evaluation)
        entitled = _entitled_to(wanted, found)
        if entitled.ends_at is not None:
            await self.personal.check(heard.instance, wanted, now)
        return heard, entitled

    async def _enter_one(self, node: Node, attestation: Attestation, entitled: Entitled, now: datetime) -> None:
        async def unit(tx: Transaction) -> None:
            await self._instances.begin(tx, node)
            await self._instances.enter(tx, node, attestation, [_given(entitled)], now)
            if entitled.ends_at is not None:
                await self.personal.still_in_force(tx, attestation.instance, entitled.id, now)

        await self._database.write(unit)

    def _heard(self, node: Node, now: datetime) -> None:
        if self._instances.is_silent(node, now):
            raise Unobserved("nothing is signed for a node that does not report its live set: it must follow first")

    async def _believed(self, node: Node, attestations: Sequence[Attestation]) -> list[Believed | Problem]:
        """What counts of a node agent's word."""
        heard = [
            replace(one, selectors=frozenset(each for each in one.selectors if each.type not in VERIFIED_HERE))
            for one in attestations
        ]
        return await self._pods.believe(node, heard)

    async def _judged(self, node: Node, items: Sequence[SignItem], now: datetime) -> list[_Ready | Problem]:
        """Each item by what is believed of it; one that can't be told at the moment does not touch the others."""
        evaluation = self._rules.evaluation
        believed = await self._believed(node, [one.attestation for one in items])
        heard = [one.attestation for one in believed if isinstance(one, Believed)]
        entitled = iter(await self._entitlements(node, heard, evaluation))
        return [
            await self._judge(replace(item, attestation=one.attestation), next(entitled)[1], now)
            if isinstance(one, Believed)
            else one
            for item, one in zip(items, believed, strict=True)
        ]

    async def _entitlements(
        self, node: Node, attestations: Sequence[Attestation], evaluation: Evaluation
    ) -> list[tuple[Facts, tuple[Entitled, ...]]]:
        """What is known of each, and what it may have: by the rules, and for its tasks."""
        personal = await self.personal.of(node, [one.instance for one in attestations])
        return [
            (facts, behind(evaluation.entitled(facts), personal.get(one.instance, ())))
            for one, facts in zip(attestations, await self._facts(node, attestations), strict=True)
        ]

    async def _facts(self, node: Node, attestations: Sequence[Attestation]) -> list[Facts]:
        inherited = await self._inherited(node, attestations)
        return [
            Facts(
                node=node.selectors,
                workload=_descended(one.selectors, given),
                strength=one.strength,
                inherited=given,
            )
            for one in attestations
            for given in [frozenset().union(*(inherited[ancestor] for ancestor in one.ancestors))]
        ]

    async def _inherited(self, node: Node, attestations: Sequence[Attestation]) -> dict[str, frozenset[SpiffeId]]:
        """What the ancestors were given; another node's instances are nobody's ancestors here."""
        ancestors = sorted({ancestor for one in attestations for ancestor in one.ancestors})
        if not ancestors:
            return {}

        async def unit(tx: Transaction) -> dict[str, frozenset[SpiffeId]]:
            found: dict[str, frozenset[SpiffeId]] = dict.fromkeys(ancestors, frozenset())
            for one, where in (await store.nodes_of(tx, ancestors)).items():
                if where == node.id:
                    found[one] = frozenset(given.id for given in await store.given_to(tx, one))
            return found

        return await self._database.read(unit)

    async def _judge(self, item: SignItem, found: Sequence[Entitled], now: datetime) -> _Ready | Problem:
        try:
            entitled = _entitled_to(item.id, found)
            if entitled.ends_at is not None:
                await self.personal.check(item.attestation.instance, item.id, now)
            request = LeafRequest(
                id=item.id,
                public_key=read_public_key(item.public_key),
                instance=item.attestation.instance,
                ttl=lives(entitled, entitled.rule.x509_ttl or self._leaves.authority.settings.x509_ttl, now),
                dns_names=entitled.rule.dns_names,
            )
        except Problem as problem:
            return problem
        return _Ready(item, entitled, request)

    async def _enter(self, node: Node, ready: Sequence[_Ready], now: datetime) -> dict[int, Problem]:
        """Make every instance known; answers who must be refused, by the identity of its object."""

        async def unit(tx: Transaction) -> dict[int, Problem]:
            await self._instances.begin(tx, node)
            wanted = [(one.item.attestation, (_given(one.entitled),)) for one in ready]
            refused = await self._instances.enter_all(tx, node, wanted, now)
            named = [(one, refused.get(one.item.attestation.instance)) for one in ready]
            return {id(one): problem for one, problem in named if problem is not None}

        return await self._database.write(unit) if ready else {}

    async def _signed(self, ready: Sequence[_Ready], now: datetime) -> dict[int, Signed | Refusal]:
        """All under one durable write; if one of them is unfit, each for itself."""
        if not ready:
            return {}

        async def only_if(tx: Transaction) -> None:
            await self._instances.still_lives(tx, [one.item.attestation.instance for one in ready])
            for one in ready:
                if one.entitled.ends_at is not None:
                    await self.personal.still_in_force(tx, one.item.attestation.instance, one.item.id, now)

        try:
            chains = await self._leaves.sign([one.request for one in ready], now, only_if)
        except Problem as problem:
            if problem.retryable:
                raise
            if len(ready) == 1:
                return {id(ready[0]): _refusal(problem)}
            apart = [await self._signed([one], now) for one in ready]
            return {key: result for each in apart for key, result in each.items()}
        self._metrics.count("sojourn_svids_issued_total", len(ready), kind="x509")
        return {id(one): Signed(chain=chain) for one, chain in zip(ready, chains, strict=True)}

    def _told(self, attestation: Attestation, entitled: Sequence[Entitled], missed: Sequence[Missed]) -> Entitlement:
        """For the node agent: of rules that hold for other nodes not even the names."""
        return Entitlement(
            instance=attestation.instance,
            identities=tuple(self._identity(one) for one in entitled),
            unmatched=tuple(Unmatched(rule=one.rule, reason=one.reason) for one in missed if one.here),
        )

    def _identity(self, entitled: Entitled) -> Identity:
        rule, settings = entitled.rule, self._leaves.authority.settings
        return Identity(
            id=entitled.id,
            rule=rule.name,
            hint=entitled.hint,
            x509_ttl=rule.x509_ttl or settings.x509_ttl,
            jwt_ttl=rule.jwt_ttl or settings.jwt_ttl,
            bind=rule.bind,
            dns_names=rule.dns_names,
            audiences=rule.audiences,
            federates_with=rule.federates_with,
            ends_at=entitled.ends_at,
        )


def _descended(said: Selectors, given: frozenset[SpiffeId]) -> Selectors:
    """Without ancestors that were given nothing of the kind on this node: a node agent names them, and may lie."""
    known = {f"id:{one}" for one in given}
    return frozenset(one for one in said if one.type not in LINEAGE or one.value in known)


def _entitled_to(wanted: SpiffeId, found: Sequence[Entitled]) -> Entitled:
    for one in found:
        if one.id == wanted:
            return one
    raise NotEntitled(f"no rule gives `{wanted}` to this process on this node")


def _or_raise(believed: Believed | Problem) -> Believed:
    if isinstance(believed, Problem):
        raise believed
    return believed


def _doubted(told: Entitlement, doubt: str) -> Entitlement:
    """With the reason why a part of the node agent's word did not count, where a rule's would stand."""
    if not doubt:
        return told
    return replace(told, unmatched=(Unmatched(rule="k8s selectors", reason=doubt), *told.unmatched))


def _given(entitled: Entitled) -> Given:
    return Given(id=entitled.id, rule=entitled.rule.name, bind=entitled.rule.bind)


def _refusal(problem: Problem | _Ready) -> Refusal:
    assert isinstance(problem, Problem), "what is ready was signed"
    return Refusal(code=problem.code, reason=str(problem))
