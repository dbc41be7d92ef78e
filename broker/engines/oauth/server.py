"""One OAuth server as we speak to it: discovery, the token endpoint, revocation, introspection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlencode, urlsplit, urlunsplit

from broker.engines.oauth import answers
from broker.engines.oauth.answers import Metadata, Token
from broker.engines.oauth.proving import Client
from broker.engines.oauth.settings import Settings
from broker.errors import NotYet, OutcomeUnknown, TargetDown
from ca.errors import Unavailable
from ca.runtime.clock import Clock
from ca.runtime.fetch import Fetched, Fetcher, Trust
from ca.runtime.secret import Secret

_DEADLINE = 8.0
"""Seconds for one request: less than a call to a target may take, so that its outcome is told by us."""

_LIMIT = 128 * 1024
_KEPT = timedelta(minutes=10)
"""For how long metadata is not asked for again."""

_OK = 200
Fields = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Server:
    """See the module."""

    settings: Settings
    client: Client
    clock: Clock
    fetcher: Fetcher = field(repr=False)
    _known: tuple[datetime, Metadata] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, client: Client, clock: Clock) -> AsyncIterator[Server]:
        """Nothing is asked yet."""
        async with Fetcher(Trust(ca_file=settings.tls_ca), deadline=_DEADLINE, limit=_LIMIT) as fetcher:
            yield cls(settings, client, clock, fetcher)

    async def metadata(self) -> Metadata:
        """Where it answers what. Raises TargetDown."""
        said, now = self.settings, self.clock.now()
        if said.issuer is None:
            token = said.token_endpoint or ""
            return Metadata(
                audience=token,
                token=token,
                revocation=said.revocation_endpoint,
                introspection=said.introspection_endpoint,
            )
        if self._known is None or now - self._known[0] >= _KEPT:
            self._known = (now, await self._discover(said.issuer))
        return self._known[1]

    async def _discover(self, issuer: str) -> Metadata:
        """By RFC 8414, 3.1; where a server knows only OpenID Connect's way, by that."""
        try:
            fetched = await self.fetcher.get(_well_known(issuer))
            if fetched.status != _OK:
                fetched = await self.fetcher.get(issuer.rstrip("/") + "/.well-known/openid-configuration")
            return answers.metadata(fetched, issuer)
        except Unavailable as error:
            raise TargetDown(f"the OAuth server can't be asked where it answers: {error}") from error

    async def token(self, fields: Fields, scope: Sequence[str], exchanged: str | None = None) -> Token:
        """Ask for a token.

        Raises:
            TargetDown: nothing was asked for one.
            OutcomeUnknown: whether one was made is not known; nobody has it.
            TokenRefused, Unavailable: it said no, or something that is no answer.
        """
        where = await self.metadata()
        wanted = (*fields, ("scope", " ".join(scope))) if scope else fields
        with _sent():
            fetched = await self._post(where.token, where, wanted)
        return answers.token(fetched, scope, exchanged, self.clock.now())

    async def revoke(self, token: Secret, hint: str) -> None:
        """RFC 7009: an unknown token is success. Raises TargetDown, OutcomeUnknown, NotYet: not done."""
        where = await self.metadata()
        if where.revocation is None:
            raise NotYet("the OAuth server offers no revocation")
        with _sent():
            fetched = await self._post(where.revocation, where, (("token", token.reveal()), ("token_type_hint", hint)))
        if fetched.status != _OK:
            raise NotYet(f"the OAuth server did not revoke: {answers.refusal(fetched)}")

    async def is_active(self, token: Secret) -> bool | None:
        """RFC 7662; None where it can't be asked. Raises TargetDown, OutcomeUnknown, Unavailable."""
        where = await self.metadata()
        if where.introspection is None:
            return None
        with _sent():
            fetched = await self._post(where.introspection, where, (("token", token.reveal()),))
        return answers.is_active(fetched)

    async def _post(self, url: str, where: Metadata, fields: Iterable[tuple[str, str]]) -> Fetched:
        proof = await self.client.prove(where.audience, self.clock.now())
        body = urlencode([*fields, *proof.fields.items()]).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", **proof.headers}
        return await self.fetcher.post(url, body, headers)


@contextmanager
def _sent() -> Iterator[None]:
    """Whoever did not answer may have heard."""
    try:
        yield
    except Unavailable as error:
        raise OutcomeUnknown(f"it is not known whether the OAuth server heard: {error}") from error


def _well_known(issuer: str) -> str:
    """The path of RFC 8414 goes between the host and the issuer's own path."""
    parts = urlsplit(issuer)
    path = "/.well-known/oauth-authorization-server" + parts.path.rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
