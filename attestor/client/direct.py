"""An identity by direct attestation: a pod's or a CI job's token for SVIDs, without a node agent.

    platform = PlatformToken(method="k8s_token", platform="prod", token_file=Path("/var/run/secrets/sojourn/token"))
    server = DirectServer("https://attestor.sojourn:8444", trust_domain, Path("/run/sojourn/bundle.pem"))
    async with open_direct(server, platform) as source:      # an X509Source like any other
        ...

The token is read anew for each attestation. The server takes a token for one key, so a key is kept for as long as its
token is, and a newer token gets a key of its own. No key leaves this process. The server is known by the trust bundle
before it is shown a byte, and afterwards by the bundle it sent.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from attestor.client.errors import NoIdentity, Unreachable
from attestor.client.source import Waiting, X509Source
from attestor.client.workload_api import X509Context
from attestor.wire.direct import PATH, AttestAnswer, AttestRequest, DirectSvid
from attestor.wire.node import SERVER_PATH
from attestor.wire.trust_bundle import read_bundle
from ca import tls
from ca.errors import Denied, Malformed, Problem, Unauthenticated, Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock, SystemClock
from ca.spiffe import x509svid
from ca.spiffe.bundle import Bundle, BundleSet
from ca.spiffe.errors import Untrusted
from ca.spiffe.id import TrustDomain
from ca.spiffe.x509svid import X509Peer, X509Svid

PATIENCE = aiohttp.ClientTimeout(total=30)
LONGEST = 1024 * 1024
SOONEST = timedelta(seconds=1)
"""Between two attestations, however short the leaves are."""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformToken:
    """What proves us; `platform` is the name the server's settings give the cluster or issuer."""

    method: str
    platform: str
    token_file: Path
    spiffe_id: str | None = None


@dataclass(frozen=True, slots=True)
class DirectServer:
    """Where the server answers, and by what it is known: a file with PEM certificates or a SPIFFE bundle."""

    url: str
    trust_domain: TrustDomain
    trust_bundle: Path


@asynccontextmanager
async def open_direct(
    server: DirectServer, platform: PlatformToken, clock: Clock | None = None, *, waiting: Waiting | None = None
) -> AsyncIterator[X509Source]:
    """A source that is renewed at half the life of its shortest leaf; ready once there is an identity."""
    time = clock or SystemClock()
    attesting = _Attesting(server, platform, time)
    async with X509Source.fed_by(attesting.watch, time, waiting=waiting) as source:
        yield source


class _Attesting:
    def __init__(self, server: DirectServer, platform: PlatformToken, clock: Clock) -> None:
        self._server, self._platform, self._clock = server, platform, clock
        self._key: tuple[str, ec.EllipticCurvePrivateKey] | None = None  # the token it was bound to, and the key
        self._bundle: Bundle | None = None

    async def watch(self) -> AsyncGenerator[X509Context, None]:
        """What the rules give, again and again. Raises NoIdentity when they give nothing, Unavailable."""
        while True:
            context = await self._attest()
            yield context
            now = self._clock.now()
            due = min(one.not_before + (one.not_after - one.not_before) / 2 for one in context.svids)
            await self._clock.sleep(max(due - now, SOONEST).total_seconds())

    async def _attest(self) -> X509Context:
        token = await asyncio.to_thread(self._token)
        key = self._key_for(token)
        request = AttestRequest.model_validate(
            {
                "method": self._platform.method,
                "platform": self._platform.platform,
                "token": token,
                "csr": base64.b64encode(_csr(key)).decode(),
                "spiffe_id": self._platform.spiffe_id,
            }
        )
        answer = await self._ask(request)
        svids = tuple(_svid(one, key) for one in answer.svids)
        bundle = Bundle.from_jwks(TrustDomain.parse(answer.trust_domain), json.dumps(answer.bundle).encode())
        if not svids or bundle.trust_domain != self._server.trust_domain:
            raise Malformed("the attestor server answered with no identity of its trust domain")
        self._bundle = bundle
        return X509Context(svids=svids, bundles=BundleSet.of(bundle))

    async def _ask(self, request: AttestRequest) -> AttestAnswer:
        bundle = self._bundle
        if bundle is None:
            bundle = await asyncio.to_thread(read_bundle, self._server.trust_bundle, self._server.trust_domain)
        context = tls.client_context(None, self._judge(BundleSet.of(bundle)), on_refusal=_refused, alpn=["http/1.1"])
        try:
            async with (
                aiohttp.ClientSession(timeout=PATIENCE, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.post(
                    self._server.url.rstrip("/") + PATH,
                    data=request.model_dump_json(exclude_none=True),
                    headers={"Content-Type": "application/json"},
                    ssl=context,
                    allow_redirects=False,
                ) as response,
            ):
                return _read(response.status, await _content(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._bundle = None  # the mounted one may be newer
            raise Unreachable(f"can't reach the attestor server at `{self._server.url}`") from error

    def _judge(self, bundles: BundleSet) -> tls.ChainVerifier:
        def verify(chain: Sequence[bytes]) -> X509Peer:
            peer = x509svid.verify(chain, bundles, self._clock.now())
            if peer.id != self._server.trust_domain.member(SERVER_PATH):
                raise Untrusted(f"`{peer.id}` is not the attestor server of `{self._server.trust_domain}`")
            return peer

        return verify

    def _token(self) -> str:
        path = self._platform.token_file
        try:
            return path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the token in `{path}` can't be read") from error

    def _key_for(self, token: str) -> ec.EllipticCurvePrivateKey:
        if self._key is None or self._key[0] != token:
            self._key = (token, ec.generate_private_key(ec.SECP256R1()))
        return self._key[1]


async def _content(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > LONGEST:
            raise Malformed(f"the attestor server answers more than {LONGEST} bytes")
    return bytes(content)


def _csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Without a name: the server decides what the certificate says."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def _svid(one: DirectSvid, key: ec.EllipticCurvePrivateKey) -> X509Svid:
    try:
        chain = x509.load_pem_x509_certificates(one.x509_svid.encode())
    except ValueError as error:
        raise Malformed("the attestor server answered with a chain that can't be read") from error
    svid = X509Svid.of(tuple(chain), key, one.hint)
    if str(svid.id) != one.spiffe_id:
        raise Malformed("the attestor server answered with a certificate under another name")
    return svid


def _read(status: int, content: bytes) -> AttestAnswer:
    """The answer, or the Problem it is."""
    try:
        if status == 200:
            return AttestAnswer.model_validate_json(content)
        found = json.loads(content)
        words = str(found["detail"])
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"the attestor server answered with status {status} and nothing to read") from error
    if status == 403:
        raise NoIdentity(words)
    kinds: dict[int, type[Problem]] = {400: Malformed, 401: Unauthenticated}
    raise kinds.get(status, Denied if status < 429 else Unavailable)(words)


def _refused(problem: Problem) -> None:
    _log.warning("the attestor server was refused", reason=str(problem), peer=problem.details.get("peer"))
