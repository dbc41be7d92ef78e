"""The attestor server's parts on a real store and a real authority, without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from attestor.conversation import pipe
from attestor.instance import Strength, new_id
from attestor.methods.node.join_token import JoinToken, Prover
from attestor.rules.model import Rule
from attestor.rules.read import Terms
from attestor.selector import parse_all
from attestor.server.admission import Admission, MakeVerifier
from attestor.server.changes import Changes
from attestor.server.instances import Instances
from attestor.server.issuance.leaves import Leaves
from attestor.server.issuance.personal import Personal
from attestor.server.issuance.workloads import Workloads
from attestor.server.pods import PodView
from attestor.server.rule_source import RuleSource
from attestor.server.store import MIGRATIONS, nodes
from attestor.server.store.nodes import Node
from attestor.server.task_identity import TaskIdentities
from attestor.wire.attestation import Attestation
from attestor.wire.node import Admission as Admitted
from attestor.wire.node import SignItem
from ca.authority import Authority, AuthoritySettings
from ca.authority.settings import MAIN_SERVER
from ca.keys.memory import MemoryKeyStore
from ca.revocation import Lists
from ca.rotation import open_authority
from ca.runtime.database import Database, migrate
from ca.runtime.metrics import Metrics
from ca.spiffe import der
from ca.spiffe.bundle import BundleSet
from ca.spiffe.id import SpiffeId, TrustDomain
from ca.spiffe.x509svid import X509Peer, verify
from fakes.clock import ManualClock
from fakes.stores import chosen

DOMAIN = TrustDomain.parse("example.org")
GRACE = timedelta(seconds=15)
LIMIT = timedelta(seconds=60)
CONFIRM_GRACE = timedelta(seconds=60)
TERMS = Terms(trust_domain=DOMAIN, longest_x509=timedelta(days=5), longest_jwt=timedelta(hours=1))
KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Parts:
    """One server, taken apart."""

    database: Database
    authority: Authority
    leaves: Leaves
    rules: RuleSource
    changes: Changes
    instances: Instances
    lists: Lists
    workloads: Workloads
    identities: TaskIdentities
    admission: Admission
    clock: ManualClock

    async def join(self, name: str) -> Node:
        """Admit a node called `name`, by a token, as a node agent does."""
        return await self.node((await self.admit(name)).id)

    async def admit(self, name: str | None) -> Admitted:
        """What a node that joins is given."""
        issued = await self.admission.issue_token(name, timedelta(minutes=10), self.clock.now())
        return await self.prove(issued.token)

    async def prove(self, token: JoinToken) -> Admitted:
        """Present a token."""
        ours, theirs = pipe()
        await Prover(token).prove(ours)
        return await self.admission.attest("join_token", csr(), theirs, self.clock.now())

    async def node(self, spiffe_id: SpiffeId) -> Node:
        """What the store says of a node."""
        found = await self.database.read(lambda tx: nodes.get(tx, spiffe_id.path.rpartition("/")[2]))
        assert found is not None
        return found

    def peer_id(self, name: str) -> SpiffeId:
        """What a node of that name is called."""
        return DOMAIN.member(f"/sojourn/node/{name}")

    async def listed(self) -> frozenset[int]:
        """The serials that are named by a list, after whoever signs them had its turn."""
        await self.clock.advance(3)
        await self.lists.tick(self.clock.now())
        return frozenset(serial for one in self.lists.revocations for serial in one.serials)

    def peer(self, chain: bytes) -> X509Peer:
        """Who a chain proves to be, now."""
        bundle = self.authority.bundle(self.clock.now())
        return verify(der.split(chain, "a chain", 8), BundleSet.of(bundle), self.clock.now())


@asynccontextmanager
async def parts(
    folder: Path,
    rules: str = "rules: []",
    *,
    own: Sequence[Rule] = (),
    terms: Terms = TERMS,
    verifiers: Mapping[str, MakeVerifier] | None = None,
    pods: PodView | None = None,
    store: AbstractAsyncContextManager[Database] | None = None,
    name: str = MAIN_SERVER,
    clock: ManualClock | None = None,
) -> AsyncIterator[Parts]:
    """A server with these rules in `rules.yaml`, at a time that stands still; `name` is for one of several."""
    clock, metrics = clock or ManualClock(), Metrics()
    settings = AuthoritySettings(trust_domain=DOMAIN, server=name)
    (folder / "rules.yaml").write_text(rules)
    async with (
        store or chosen(folder / "server.db") as database,
        open_authority(settings, database, MemoryKeyStore(), clock) as authority,
    ):
        await migrate(database, "attestor.server", MIGRATIONS)
        changes, source = Changes(), RuleSource([folder / "rules.yaml"], terms, own)
        lists = Lists(authority)
        instances = Instances(database, changes, grace=GRACE, limit=LIMIT, revoked=lists.due.set)
        leaves = Leaves(authority, database)
        personal = Personal(database, DOMAIN, CONFIRM_GRACE)
        workloads = Workloads(database, leaves, source, instances, metrics, pods or PodView({}, clock), personal)
        admission = Admission(
            database, leaves, instances, changes, metrics, node_ttl=timedelta(hours=1), verifiers=verifiers or {}
        )
        identities = TaskIdentities(database, DOMAIN, instances)
        yield Parts(
            database, authority, leaves, source, changes, instances, lists, workloads, identities, admission, clock
        )


def csr(key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    """A certificate request for `key`."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def attestation(
    *selectors: str,
    instance: str | None = None,
    counter: int = 1,
    strength: Strength = Strength.OWN_UID,
    ancestors: Sequence[str] = (),
) -> Attestation:
    """What a node agent says of a process."""
    return Attestation(
        instance=instance or new_id(),
        selectors=parse_all(selectors),
        strength=strength,
        counter=counter,
        ancestors=tuple(ancestors),
    )


def wants(path: str, of: Attestation, public_key: bytes = SPKI) -> SignItem:
    """A leaf asked for."""
    return SignItem(attestation=of, id=DOMAIN.member(path), public_key=public_key)
