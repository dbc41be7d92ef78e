"""Who is a node: join tokens and other proofs, admission, renewal, recognition on every call, eviction and ban.

Each attestation of a node begins a new *admission*, a random id that stands in the subject of every leaf it gets from
then on. So a leaf of an earlier admission opens nothing, although it names the same node and has not expired.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType

from attestor.conversation import Conversation
from attestor.errors import AdmittedOtherwise, Banned, LeafRevoked, NotProven, UnknownNode
from attestor.methods.node import join_token
from attestor.methods.node.join_token import JoinToken
from attestor.methods.node.protocol import Attested, Occasion, Verifier, parse_node_name
from attestor.server.changes import Changes
from attestor.server.instances import Instances
from attestor.server.issuance.leaves import Leaves, read_csr, spki
from attestor.server.risks import Risk, Risks
from attestor.server.store import nodes, tokens
from attestor.server.store.nodes import Node, NodeState
from attestor.server.store.tokens import StoredToken
from attestor.server.token_keys import TokenKeys
from attestor.wire.node import NODE_PATH, BundleDocument
from attestor.wire.node import Admission as Admitted
from ca.errors import Malformed, Problem, Unauthenticated
from ca.profiles.x509 import LeafKey, LeafRequest
from ca.runtime import log
from ca.runtime.database import Database, Transaction
from ca.runtime.metrics import Metrics
from ca.runtime.secret import Secret
from ca.spiffe.id import SpiffeId
from ca.spiffe.x509svid import X509Peer
from ca.store import is_revoked, revoke_leaves_of

LONGEST_TOKEN_LIFE = timedelta(days=1)
MakeVerifier = Callable[[Occasion], Verifier]
"""A method's verifier for one attestation."""
_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token just made, for the one answer that shows it."""

    token: JoinToken
    node: str | None
    expires_at: datetime


class Admission:
    """One for each server process."""

    def __init__(
        self,
        database: Database,
        leaves: Leaves,
        instances: Instances,
        changes: Changes,
        metrics: Metrics,
        *,
        node_ttl: timedelta,
        verifiers: Mapping[str, MakeVerifier] = MappingProxyType({}),
    ) -> None:
        self._risks = Risks(database, metrics)
        self._token_keys = TokenKeys(database, self._risks)
        self._database, self._leaves = database, leaves
        self._instances, self._changes, self._metrics = instances, changes, metrics
        self._node_ttl = node_ttl
        self._verifiers: Mapping[str, MakeVerifier] = {join_token.METHOD: self._by_token, **verifiers}

    async def issue_token(self, node: str | None, ttl: timedelta, now: datetime) -> IssuedToken:
        """A new join token, for the node of that name or for any. Raises Malformed, Banned, Unavailable."""
        if node is not None:
            parse_node_name(node)
        if not timedelta(seconds=1) <= ttl <= LONGEST_TOKEN_LIFE:
            raise Malformed("a join token must live 1 second to 24 hours")
        token = JoinToken.new(self._leaves.authority.root_key_hash(now))
        stored = StoredToken(
            id=token.id, secret_hash=token.secret_hash(), node=node, created_at=now, expires_at=now + ttl
        )

        async def unit(tx: Transaction) -> None:
            found = await nodes.get(tx, node) if node is not None else None
            if found is not None and found.state is NodeState.BANNED:
                raise Banned(f"the node `{node}` is banned")
            await tokens.insert(tx, stored)

        await self._database.write(unit)
        _log.info("join token issued", id=token.id, node=node, expires_at=stored.expires_at)
        return IssuedToken(token, node, stored.expires_at)

    async def attest(self, method: str, csr: bytes, conversation: Conversation, now: datetime) -> Admitted:
        """Admit whoever proves itself by `method`. Raises NotProven, Banned, Malformed, BadConversation."""
        try:
            key = read_csr(csr)
            verifier = self._verifier(method)(Occasion(now=now, public_key=spki(key)))
            attested = await verifier.verify(conversation)
            await self._bind(attested, key, now)
            admitted = await self._admit(attested, method, key, now)
        except Problem as problem:
            self._metrics.count("sojourn_attestations_total", kind="node", outcome="refused")
            _log.warning("node refused", method=method, error=problem)
            raise
        self._metrics.count("sojourn_attestations_total", kind="node", outcome="admitted")
        _log.info("node admitted", node=attested.node, method=method)
        return admitted

    async def renew(self, node: Node, csr: bytes, now: datetime) -> Admitted:
        """A new leaf of the same admission. Raises Malformed, Unavailable."""
        return await self._admitted(node, read_csr(csr), now)

    async def recognise(self, peer: object, now: datetime) -> Node:
        """The node at the other end of a connection; asked again for every call and every message.

        Raises:
            Unauthenticated: no certificate, not a node's, or it has expired since the handshake.
            UnknownNode, Banned: not, or no longer, one of ours.
            LeafRevoked: an operator took this certificate back.
        """
        if not isinstance(peer, X509Peer):
            raise Unauthenticated("this call needs the node's own certificate")
        if now >= peer.not_after:
            raise Unauthenticated(f"the certificate of `{peer.id}` has expired since the connection was opened")
        name = peer.id.path.removeprefix(NODE_PATH)
        if peer.id != self.spiffe_id(name) or not name or "/" in name:
            raise Unauthenticated(f"`{peer.id}` is not a node of this trust domain")

        async def unit(tx: Transaction) -> tuple[Node | None, bool]:
            return await nodes.get(tx, name), await is_revoked(tx, peer.issuer_key_id, peer.serial)

        node, revoked = await self._database.read(unit)
        if node is None:
            raise UnknownNode(f"the node `{name}` was never admitted by this server")
        if node.state is not NodeState.ADMITTED:
            raise Banned(f"the node `{name}` is {node.state}: it must prove itself anew")
        if not hmac.compare_digest(peer.instance or "", node.admission):
            raise Banned(f"the node `{name}` was admitted anew since this certificate was issued")
        if revoked:
            raise LeafRevoked(f"the certificate of `{peer.id}` was revoked: attest anew")
        return node

    async def send_away(self, name: str, state: NodeState, now: datetime) -> tuple[NodeState, int]:
        """Evict or ban; its instances end in the same transaction. Raises UnknownNode."""

        async def unit(tx: Transaction) -> tuple[NodeState, int]:
            if await nodes.get(tx, name) is None:
                raise UnknownNode(f"there is no node `{name}`")
            await nodes.send_away(tx, name, state)
            found = await nodes.get(tx, name)
            assert found is not None, "nodes are never removed"
            await revoke_leaves_of(tx, [found.admission], alive_at=now, reason=f"the node was {state}", now=now)
            return found.state, await self._instances.end_all(tx, name, f"its node was {found.state}", now)

        result = await self._database.write(unit, ending=True)
        _log.info("node sent away", node=name, state=str(result[0]), instances_ended=result[1])
        self._instances.tell()
        return result

    async def lift_ban(self, name: str) -> NodeState:
        """Let a banned node prove itself again; of another nothing changes. Raises UnknownNode, Unavailable."""

        async def unit(tx: Transaction) -> tuple[bool, NodeState]:
            lifted, found = await nodes.lift_ban(tx, name), await nodes.get(tx, name)
            if found is None:
                raise UnknownNode(f"there is no node `{name}`")
            return lifted, found.state

        lifted, state = await self._database.write(unit)
        if lifted:
            _log.info("a node's ban was lifted", node=name)
        return state

    async def _bind(self, attested: Attested, key: LeafKey, now: datetime) -> None:
        """A proof that could be copied is good for one key."""
        if attested.token_id:
            subject, expires = f"node {attested.node}", now + LONGEST_TOKEN_LIFE
            await self._token_keys.bind(attested.token_id, subject, spki(key), {}, expires, now)

    def _verifier(self, method: str) -> MakeVerifier:
        found = self._verifiers.get(method)
        if found is None:
            known = ", ".join(f"`{one}`" for one in self._verifiers)
            shown = method[:40].encode("unicode_escape").decode("ascii")
            raise NotProven(f"`{shown}` is not a method of node attestation here: expected one of {known}")
        return found

    def _by_token(self, occasion: Occasion) -> Verifier:
        return join_token.Verifier(partial(self._redeem, occasion.now))

    async def _redeem(self, now: datetime, token_id: str, secret: Secret) -> str:
        """Use a token up; the node's name is the one it is pinned to, or its own id.

        Who does not know a token's secret makes us look and write nothing. Who knows that of a used one holds what
        another machine was admitted with, and that is said aloud: one of the two is not who was meant.
        """
        hashed = join_token.secret_hash(secret)
        found = await self._database.read(lambda tx: tokens.known(tx, token_id, hashed))
        if found is not None and found.used_at is None:
            if await self._database.write(lambda tx: tokens.redeem(tx, token_id, hashed, now)):
                return found.node
            found = await self._database.read(lambda tx: tokens.known(tx, token_id, hashed))
        if found is not None and found.used_at is not None:
            used = found.used_at.isoformat(timespec="seconds")
            detail = (
                f"the join token {token_id} came again and was used at {used}: evict this node unless it was its own"
            )
            await self._risks.note(Risk.TOKEN_TWICE, f"node {found.node}", detail, now)
        raise NotProven("the join token is unknown, used or expired")

    async def _admit(self, attested: Attested, method: str, key: LeafKey, now: datetime) -> Admitted:
        node = Node(
            id=attested.node,
            state=NodeState.ADMITTED,
            admission=secrets.token_hex(16),
            method=method,
            selectors=attested.selectors,
            admitted_at=now,
            seen_at=now,
            live_counter=0,
        )

        async def unit(tx: Transaction) -> None:
            if not await nodes.admit(tx, node):
                await _refuse(tx, node)

        await self._database.write(unit)
        self._instances.heard(node, now)
        return await self._admitted(node, key, now)

    async def _admitted(self, node: Node, key: LeafKey, now: datetime) -> Admitted:
        spiffe_id = self.spiffe_id(node.id)
        request = LeafRequest(id=spiffe_id, public_key=key, instance=node.admission, ttl=self._node_ttl)
        (chain,) = await self._leaves.sign([request], now)
        authority = self._leaves.authority
        bundle = BundleDocument(trust_domain=authority.trust_domain, document=authority.bundle(now).to_jwks())
        return Admitted(id=spiffe_id, chain=chain, bundle=bundle, selectors=node.selectors)

    def spiffe_id(self, name: str) -> SpiffeId:
        """What a node of that name is called."""
        return SpiffeId(self._leaves.authority.trust_domain, NODE_PATH + name)


async def _refuse(tx: Transaction, node: Node) -> None:
    """Say why a node was not admitted."""
    found = await nodes.get(tx, node.id)
    if found is not None and found.state is not NodeState.BANNED:
        raise AdmittedOtherwise(
            f"the node `{node.id}` was admitted by `{found.method}`: evict it before it comes by `{node.method}`"
        )
    raise Banned(f"the node `{node.id}` is banned")
