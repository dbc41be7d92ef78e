"""Direct attestation: a platform's token and a certificate request for SVIDs, without a node agent.

The same rules are evaluated, and one must name direct attestation by a selector of where the token comes from:
`node:direct`, `node:method:k8s_token`, `node:cluster:prod`. A pod is one instance, whichever of its containers asks.
Its leaves live five minutes at most and not longer than the token; each renewal has the platform asked again. It ends
when the platform shows that the pod is gone, or when it was not renewed in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from attestor.errors import Banned, NotEntitled, NotProven
from attestor.instance import State, new_id
from attestor.methods.platform.protocol import Platform, Proven, short, token_id
from attestor.rules.evaluate import Entitled, Facts
from attestor.server.instances import Instances
from attestor.server.issuance.leaves import Leaves, read_request, spki
from attestor.server.rule_source import RuleSource
from attestor.server.store import direct as store
from attestor.server.store import instances as instance_store
from attestor.server.store import nodes, platform_tokens
from attestor.server.store.direct import DirectInstance
from attestor.server.store.instances import Given
from attestor.server.store.nodes import NodeState
from attestor.server.token_keys import TokenKeys
from attestor.wire.attestation import Attestation
from ca.errors import Denied, Problem, Unavailable
from ca.profiles.jwt import JwtRequest
from ca.profiles.x509 import LeafKey, LeafRequest
from ca.runtime import log
from ca.runtime.database import Database, Transaction
from ca.runtime.metrics import Metrics
from ca.spiffe.id import SpiffeId

LONGEST_LEAF = timedelta(minutes=5)
SHORTEST_LEAF = timedelta(seconds=10)
"""A token that ends sooner is not worth a leaf: the kubelet has a newer one by then."""
GRACE = timedelta(seconds=30)
MOST_SVIDS = 16

NOT_RENEWED = "it was not renewed in time"
GONE = "its platform says that it has ended"

_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody wants."""

    method: str
    platform: str
    token: str
    csr: bytes
    wanted: SpiffeId | None
    audience: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One identity: a chain of concatenated DER, and a token when one was asked for."""

    entitled: Entitled
    chain: bytes
    expires_at: datetime
    jwt: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """One for each server process; `platforms` by method and name."""

    database: Database
    leaves: Leaves
    rules: RuleSource
    instances: Instances
    platforms: Mapping[tuple[str, str], Platform]
    token_keys: TokenKeys
    metrics: Metrics
    started: datetime

    async def attest(self, asked: Asked, now: datetime) -> tuple[DirectInstance, list[Issued]]:
        """SVIDs for whoever the token speaks for. Raises NotProven, NotEntitled, Denied, Malformed, Unavailable."""
        try:
            issued = await self._attest(asked, now)
        except Problem as problem:
            self.metrics.count("sojourn_attestations_total", kind="direct", outcome="refused")
            _log.warning(
                "direct attestation refused", method=asked.method, platform=short(asked.platform), error=problem
            )
            raise
        self.metrics.count("sojourn_attestations_total", kind="direct", outcome="admitted")
        return issued

    async def tick(self, now: datetime) -> None:
        """End what its platform calls gone, and what was not renewed; the time we were away is held against nobody."""
        found = await self.database.read(store.everything)
        late = [one for one in found if now > max(one.renew_by, self.started + LONGEST_LEAF + GRACE)]
        gone = [one for one in found if one not in late and await self._is_gone(one.subject, seems=True)]
        await self._end(late, NOT_RENEWED, now)
        await self._end(gone, GONE, now)
        await self.database.write(lambda tx: platform_tokens.prune(tx, now))

    async def _attest(self, asked: Asked, now: datetime) -> tuple[DirectInstance, list[Issued]]:
        platform = self.platforms.get((asked.method, asked.platform))
        if platform is None:
            raise NotProven(f"no `{short(asked.method)}` is taken from `{short(asked.platform)}` here")
        key, names = read_request(asked.csr)
        try:
            proven = await platform.verify(asked.token, now)
        except NotProven:
            await self._perhaps_gone(asked.token, now)
            raise
        ttl = min(LONGEST_LEAF, proven.expires_at - now)
        if ttl < SHORTEST_LEAF:
            raise NotProven("the token is about to end: come with a newer one")
        chosen = self._chosen(proven, asked)
        _check_names(names, chosen)
        await self.token_keys.bind(proven.token_id, proven.subject, spki(key), proven.parts, proven.expires_at, now)
        one = await self._enter(proven, chosen, now, now + ttl + GRACE)
        return one, await self._signed(one.instance, chosen, key, ttl, asked.audience, now)

    def _chosen(self, proven: Proven, asked: Asked) -> Sequence[Entitled]:
        """The identities to be given, the default first. Raises NotEntitled, Denied."""
        facts = Facts(node=proven.place, workload=proven.selectors, strength=proven.strength)
        found = [one for one in self.rules.evaluation.entitled(facts) if asked.wanted in {None, one.id}][:MOST_SVIDS]
        if not found:
            what = f"`{asked.wanted}`" if asked.wanted else "an identity"
            raise NotEntitled(f"no rule that names direct attestation gives {what} to this pod or job")
        for one in found:
            allowed = one.rule.audiences
            if allowed and not set(asked.audience) <= set(allowed):
                raise Denied(f"the rule `{one.rule.name}` allows only the audiences {', '.join(sorted(allowed))}")
        return found

    async def _enter(
        self, proven: Proven, chosen: Sequence[Entitled], now: datetime, renew_by: datetime
    ) -> DirectInstance:
        """The instance is known before anything is signed for it; one that ended is not revived but succeeded."""
        given = [Given(id=one.id, rule=one.rule.name, bind=one.rule.bind) for one in chosen]

        async def unit(tx: Transaction) -> DirectInstance:
            node = await nodes.stand_in(tx, _place_of(proven.subject), proven.place, now)
            if node.state is NodeState.BANNED:
                raise Banned(f"`{node.id}` is banned")
            found = await store.of_subject(tx, proven.subject)
            known = await instance_store.get(tx, found.instance) if found is not None else None
            alive = known is not None and known.state is not State.ENDED
            one = DirectInstance(
                subject=proven.subject,
                instance=found.instance if found is not None and alive else new_id(),
                renew_by=max(renew_by, found.renew_by) if found is not None and alive else renew_by,
            )
            await store.put(tx, one)
            attestation = Attestation(
                instance=one.instance, selectors=proven.selectors, strength=proven.strength, counter=1
            )
            await self.instances.enter(tx, node, attestation, given, now)
            return one

        return await self.database.write(unit)

    async def _signed(  # noqa: PLR0917 - what was decided, and how long it holds
        self,
        instance: str,
        chosen: Sequence[Entitled],
        key: LeafKey,
        ttl: timedelta,
        audience: tuple[str, ...],
        now: datetime,
    ) -> list[Issued]:
        settings = self.leaves.authority.settings
        lives = [min(ttl, one.rule.x509_ttl or settings.x509_ttl) for one in chosen]
        requests = [
            LeafRequest(id=one.id, public_key=key, instance=instance, ttl=life, dns_names=one.rule.dns_names)
            for one, life in zip(chosen, lives, strict=True)
        ]
        chains = await self.leaves.sign(requests, now, lambda tx: self.instances.still_lives(tx, [instance]))
        self.metrics.count("sojourn_svids_issued_total", len(chains), kind="x509")
        issued = [
            Issued(entitled=one, chain=chain, expires_at=now + life, jwt=None)
            for one, chain, life in zip(chosen, chains, lives, strict=True)
        ]
        if not audience:
            return issued
        return [replace(one, jwt=await self._jwt(one.entitled, instance, ttl, audience, now)) for one in issued]

    async def _jwt(
        self, entitled: Entitled, instance: str, ttl: timedelta, audience: tuple[str, ...], now: datetime
    ) -> str:
        life = min(ttl, entitled.rule.jwt_ttl or self.leaves.authority.settings.jwt_ttl)
        request = JwtRequest(id=entitled.id, audience=audience, instance=instance, ttl=life)
        token = await self.leaves.sign_jwt(request, now)
        self.metrics.count("sojourn_svids_issued_total", kind="jwt")
        return token

    async def _perhaps_gone(self, token: str, now: datetime) -> None:
        """A token that was good and is not any more may be the first word of an end; only the platform's own counts."""
        subject = await self.token_keys.subject_of(token_id(token))
        found = await self.database.read(lambda tx: store.of_subject(tx, subject)) if subject is not None else None
        if found is not None and await self._is_gone(found.subject, seems=False):
            await self._end([found], GONE, now)

    async def _is_gone(self, subject: str, *, seems: bool) -> bool:
        """By the platform's own word; `seems` asks only where a watch says that it might be."""
        platform = self.platforms.get(_place_of(subject))
        if platform is None or (seems and not platform.seems_gone(subject)):
            return False
        try:
            return await platform.is_gone(subject)
        except Unavailable as problem:
            _log.warning("can't tell whether a pod or job has ended", error=problem)
            return False

    async def _end(self, found: Sequence[DirectInstance], reason: str, now: datetime) -> None:
        if not found:
            return

        async def unit(tx: Transaction) -> None:
            removed = [one for one in found if await store.remove(tx, one)]
            known = [await instance_store.get(tx, one.instance) for one in removed]
            await self.instances.over(tx, [one for one in known if one is not None], reason, now)

        await self.database.write(unit, ending=True)
        self.instances.tell()


def _place_of(subject: str) -> tuple[str, str]:
    method, name, _ = subject.split("/", 2)
    return method, name


def _check_names(names: frozenset[str], chosen: Sequence[Entitled]) -> None:
    """A request that asks for a name it does not get is refused, not quietly answered with another. Raises Denied."""
    given = {str(one.id) for one in chosen} | {name for one in chosen for name in one.rule.dns_names}
    if not names <= given:
        raise Denied(
            f"the certificate request asks for `{short(min(names - given))}`, which no rule gives: leave names out"
        )
