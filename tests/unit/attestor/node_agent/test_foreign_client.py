"""The client everybody else uses: PyPI `spiffe`, unmodified, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from ca.runtime.clock import SystemClock
from fakes.clock import ManualClock
from fakes.workload import workload_api

SCRIPT = """
import json, sys, threading
from spiffe import JwtSource, SpiffeId, TrustDomain, WorkloadApiClient, X509Source

def say(**facts):
    print(json.dumps(facts), flush=True)

address, domain = sys.argv[1], TrustDomain("example.org")
with WorkloadApiClient(address) as client:
    svid = client.fetch_x509_svid()
    say(id=str(svid.spiffe_id), chain=len(svid.cert_chain))
    say(bundles=len(client.fetch_x509_bundles().get_bundle_for_trust_domain(domain).x509_authorities))
    token = client.fetch_jwt_svid(audience={"server"})
    say(sub=str(token.spiffe_id), aud=sorted(token.audience))
    judged = client.validate_jwt_svid(token.token, audience="server")
    say(judged=str(judged.spiffe_id))
    say(jwt_bundle=len(client.fetch_jwt_bundles().get_bundle_for_trust_domain(domain).jwt_authorities))
with X509Source(socket_path=address) as source:
    changed = threading.Event()
    before = source.svid.cert_chain[0].serial_number
    source.subscribe_for_updates(changed.set)
    say(ready=True)
    changed.wait(60)
    say(rotated=source.svid.cert_chain[0].serial_number != before, id=str(source.svid.spiffe_id))
"""


async def test_the_pypi_client_fetches_everything_and_sees_a_rotation(tmp_path: Path) -> None:
    """Done when 2, without the command around it."""
    async with workload_api(tmp_path, clock=ManualClock(SystemClock().now())) as agent:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT, agent.address, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None

        async def heard() -> dict[str, Any]:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                return dict(json.loads(await process.stdout.readline()))

        assert await heard() == {"id": "spiffe://example.org/agent", "chain": 2}
        assert await heard() == {"bundles": 1}
        assert await heard() == {"sub": "spiffe://example.org/agent", "aud": ["server"]}
        assert await heard() == {"judged": "spiffe://example.org/agent"}
        assert await heard() == {"jwt_bundle": 1}
        assert await heard() == {"ready": True}
        await agent.clock.advance(31 * 60)
        await agent.tick()
        assert await heard() == {"rotated": True, "id": "spiffe://example.org/agent"}
        assert await process.wait() == 0
