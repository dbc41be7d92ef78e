"""STS of one region as we speak to it: a form posted to `/`, signed by keys or carrying our own JWT-SVID."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlencode, urlsplit

from broker.engines.aws import answers
from broker.engines.aws.answers import Caller, Session
from broker.engines.aws.settings import RoleSettings, Settings
from broker.engines.aws.signing import Keys, signed
from broker.engines.protocol import Lent
from broker.errors import OutcomeUnknown, TargetDown
from ca.errors import Malformed, Problem, Unavailable
from ca.runtime.fetch import Fetched, Fetcher, Trust
from ca.runtime.secret import Reference, Secret

_DEADLINE = 8.0
"""Seconds for one request: less than a call to a target may take, so that its outcome is told by us."""

_VERSION = "2011-06-15"
_FORM = "application/x-www-form-urlencoded; charset=utf-8"
Fields = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Sts:
    """See the module."""

    settings: Settings
    lent: Lent
    fetcher: Fetcher = field(repr=False)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, lent: Lent) -> AsyncIterator[Sts]:
        """Nothing is asked yet."""
        trust = Trust(ca_file=settings.tls_ca)
        async with Fetcher(trust, deadline=_DEADLINE, limit=answers.LIMIT) as fetcher:
            yield cls(settings, lent, fetcher)

    async def assume(self, said: RoleSettings, name: str, life: timedelta) -> Session:
        """A session of the role, called `name`.

        Raises:
            TargetDown: nothing was asked: we could not prove who we are.
            OutcomeUnknown: whether there is a session is not known; nobody has it.
            SessionRefused, Unavailable: it said no, or something that is no answer.
        """
        asked = [("RoleArn", said.role_arn), ("RoleSessionName", name)]
        asked.append(("DurationSeconds", str(int(life.total_seconds()))))
        policy = said.policy_text()
        if policy is not None:
            asked.append(("Policy", policy))
        asked += [(f"PolicyArns.member.{at}.arn", arn) for at, arn in enumerate(said.policy_arns, 1)]
        if self.settings.authentication == "web-identity":
            action = "AssumeRoleWithWebIdentity"
            return answers.session(
                await self._post(action, [*asked, ("WebIdentityToken", await self._token())]), action
            )
        for at, (key, value) in enumerate(said.tags.items(), 1):
            asked += [(f"Tags.member.{at}.Key", key), (f"Tags.member.{at}.Value", value)]
        if said.source_identity:
            asked.append(("SourceIdentity", name))
        if said.external_id is not None:
            asked.append(("ExternalId", said.external_id))
        return answers.session(await self._post("AssumeRole", asked, self.own_keys()), "AssumeRole")

    async def caller(self, keys: Keys) -> Caller:
        """Whom AWS takes the holder of `keys` for. Raises as `assume` does."""
        return answers.caller(await self._post("GetCallerIdentity", [], keys))

    def own_keys(self) -> Keys:
        """The user's, read anew each time: whoever rotates them replaces the files. Raises TargetDown."""
        access, secret = _read(self.settings.access_key), _read(self.settings.secret_key)
        if not access.isascii() or not access.isalnum():
            raise TargetDown("the access key of the broker is none: expected letters and digits")
        return Keys(access_key=access, secret_key=Secret(secret))

    async def _token(self) -> str:
        if self.lent.tokens is None:
            raise TargetDown("the broker has no identity of its own here that AWS could be shown")
        try:
            return (await self.lent.tokens.token(self.settings.audience)).reveal()
        except Problem as problem:
            raise TargetDown(f"the broker's own JWT-SVID can't be had: {problem}") from problem

    async def _post(self, action: str, fields: Fields, keys: Keys | None = None) -> Fetched:
        url = self.settings.url
        body = urlencode([("Action", action), ("Version", _VERSION), *fields]).encode()
        headers = {"host": urlsplit(url).netloc, "content-type": _FORM}
        if keys is not None:
            now = self.lent.clock.now()
            headers = signed(keys, headers, body, region=self.settings.region, service="sts", now=now)
        try:
            return await self.fetcher.post(f"{url}/", body, {**headers, "accept": "application/xml"})
        except Unavailable as error:
            raise OutcomeUnknown(f"it is not known whether STS heard: {error}") from error


def _read(reference: Reference | None) -> str:
    try:
        return "" if reference is None else reference.read().reveal()
    except Malformed as error:
        raise TargetDown(f"the broker's own keys can't be read: {error}") from error
