"""The SPIFFE client of PyPI as anybody would use it; nothing of ours is imported here.

Run isolated (`python -I`); prints one line of JSON per thing it saw, and ends after a pushed rotation.
"""

from __future__ import annotations

import itertools
import json
import queue
import sys
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from spiffe import JwtSvid, SpiffeId, TrustDomain, WorkloadApiClient
from spiffe.errors import PySpiffeError

GUARD = 60.0
assert not [name for name in sys.modules if name.partition(".")[0] in {"ca", "attestor", "broker"}]


def say(what: str, **facts: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps({"what": what, **facts}) + "\n")
    sys.stdout.flush()


def facts_of(svid: Any, context: Any) -> dict[str, Any]:
    """What a verifier would look at; the chain is followed by hand up to an authority of the bundle."""
    authorities = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain).x509_authorities
    chain = svid.cert_chain
    for certificate, issuer in itertools.pairwise(chain):
        certificate.verify_directly_issued_by(issuer)
    roots = [one for one in authorities if one.subject == chain[-1].issuer]
    chain[-1].verify_directly_issued_by(roots[0])
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "id": str(svid.spiffe_id),
        "serial": str(svid.leaf.serial_number),
        "own_key": svid.private_key.public_key().public_bytes(*spki) == svid.leaf.public_key().public_bytes(*spki),
        "authorities": len(authorities),
    }


def documents(client: WorkloadApiClient) -> None:
    """X.509 and JWT, SVIDs and bundles, each by its own call."""
    context = client.fetch_x509_context(timeout=GUARD)
    say("x509", **facts_of(context.default_svid, context))
    domain = TrustDomain(context.default_svid.spiffe_id.trust_domain.name)
    bundle = client.fetch_x509_bundles(timeout=GUARD).get_bundle_for_trust_domain(domain)
    keys = client.fetch_jwt_bundles(timeout=GUARD).get_bundle_for_trust_domain(domain)
    assert bundle is not None
    assert keys is not None
    say("x509 bundle", authorities=len(bundle.x509_authorities))
    svid = client.fetch_jwt_svid({"orders"}, timeout=GUARD)
    own = JwtSvid.parse_and_validate(svid.token, keys, {"orders"})
    say("jwt", id=str(own.spiffe_id), keys=len(keys.jwt_authorities))
    say("validated", id=str(client.validate_jwt_svid(svid.token, "orders", timeout=GUARD).spiffe_id))
    broker = SpiffeId(f"spiffe://{domain.name}/sojourn/broker")
    refused("another audience", lambda: client.validate_jwt_svid(svid.token, "payments", timeout=GUARD))
    refused("another subject", lambda: client.fetch_jwt_svid({"orders"}, broker, timeout=GUARD))


def refused(case: str, call: Callable[[], object]) -> None:
    """Say how it was refused."""
    try:
        call()
    except PySpiffeError as error:
        say("refused", case=case, error=type(error).__name__)


def rotation(client: WorkloadApiClient) -> None:
    """Two contexts of one stream: the second was pushed."""
    seen: queue.Queue[Any] = queue.Queue()
    stream = client.stream_x509_contexts(seen.put, seen.put, retry_connect=False)
    for what in ("first", "pushed"):
        context = seen.get(timeout=GUARD)
        if isinstance(context, Exception):
            raise context
        say(what, **facts_of(context.default_svid, context))
    stream.cancel()


def main(address: str) -> None:
    """Everything, or the refusal."""
    client = WorkloadApiClient(address)
    try:
        documents(client)
        rotation(client)
    except PySpiffeError as error:
        say("nothing", error=str(error))
    client.close()


if __name__ == "__main__":
    main(sys.argv[1])
