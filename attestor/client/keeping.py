"""Keep an SVID, what belongs to it and tokens in files, as fresh as a source.

Each state is written whole (`attestor.client.files`); one that is the same as the last is not written again, so whoever
is told of changes is told of nothing else. Tokens are fetched anew at half their life. One that could not be had anew
stays until it expires and is then left out; the rest goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from attestor.client.beside import beside
from attestor.client.errors import NoIdentity
from attestor.client.files import File, SvidFiles, federated_files, pem_files, revocation_files
from attestor.client.source import JwtSource, X509Source
from ca.errors import Malformed, Problem
from ca.runtime import log
from ca.runtime.leaving import still_wanted
from ca.spiffe.bundle import BundleSet
from ca.spiffe.jwtsvid import JwtSvid
from ca.spiffe.revocation_list import RevocationLists
from ca.spiffe.x509svid import X509Svid

AGAIN = 5.0
"""Seconds after which a token that could not be had is asked for again."""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is written beside certificate, key and bundle: tokens by the name of their file, for their audiences."""

    hint: str | None = None
    federated: bool = False
    revocation_lists: bool = False
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def svid_of(self, svids: tuple[X509Svid, ...]) -> X509Svid:
        """The identity that is written. Raises NoIdentity."""
        for one in svids:
            if self.hint is None or one.hint == self.hint:
                return one
        raise NoIdentity(
            "this process has no identity any more"
            if self.hint is None
            else f"this process has no identity with the hint `{self.hint}`"
        )

    def files(
        self, svid: X509Svid, bundles: BundleSet, lists: RevocationLists, tokens: Mapping[str, JwtSvid]
    ) -> dict[str, File]:
        """A state. Raises Malformed when there is no bundle of the identity's own domain."""
        bundle = bundles.get(svid.id.trust_domain)
        if bundle is None:
            raise Malformed(f"the Workload API gave no bundle for `{svid.id.trust_domain}`")
        found = pem_files(svid, bundle)
        if self.federated:
            found |= federated_files(bundles)
        if self.revocation_lists:
            found |= revocation_files(lists)
        return found | {name: File(one.token.encode(), private=True) for name, one in tokens.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A new state: where it is, whose, and which of its files are others than before."""

    folder: Path
    svid: X509Svid
    tokens: Mapping[str, JwtSvid]
    changed: frozenset[str]

    @property
    def only_tokens(self) -> bool:
        """Whether nothing changed but tokens, which programs read anew each time they use one."""
        return self.changed <= self.tokens.keys()


Told: TypeAlias = Callable[[Written], Awaitable[None]]


async def keep_files(
    source: X509Source, files: SvidFiles, wanted: Wanted | None = None, *, jwt: JwtSource | None = None, told: Told
) -> None:
    """Keep `files` as fresh as `source`, and `jwt` where tokens are wanted, until cancelled; `told` hears of changes.

    Raises:
        Unavailable: the disk refuses.
        NoIdentity: the identity was withdrawn; the files were removed before.
    """
    keeper = _Keeper(source, files, wanted or Wanted(), told)
    try:
        if jwt is None or not keeper.wanted.tokens:
            await keeper.follow()
            return
        await keeper.refresh(jwt)
        async with beside(keeper.follow_tokens(jwt)):
            await keeper.follow()
    except NoIdentity:
        files.withdraw()
        raise
    except BaseExceptionGroup as errors:
        if errors.subgroup(NoIdentity) is None:
            raise
        files.withdraw()
        raise NoIdentity("this process has no identity any more") from errors


class _Keeper:
    """The last state, and who hears of the next."""

    def __init__(self, source: X509Source, files: SvidFiles, wanted: Wanted, told: Told) -> None:
        self.wanted = wanted
        self._source, self._files, self._told = source, files, told
        self._tokens: dict[str, JwtSvid] = {}
        self._last: dict[str, File] = {}
        self._one = asyncio.Lock()

    async def follow(self) -> None:
        """A state for each change of the source."""
        async for _ in self._source.changed():
            await self._put()

    async def follow_tokens(self, jwt: JwtSource) -> None:
        """A state for each token that is fetched anew: at half its life, or when its bundle changed."""
        changed = asyncio.Event()
        end = jwt.subscribe(changed.set)
        try:
            async with beside(self._at_half_life(jwt)):
                await self._on_change(jwt, changed)
        finally:
            end()

    async def _at_half_life(self, jwt: JwtSource) -> None:
        clock = jwt.clock
        while True:
            still_wanted()
            now = clock.now()
            left = [(one.expires_at - now) / 2 for one in self._tokens.values()]
            missing = len(left) < len(self.wanted.tokens)
            pause = min([*left, *([timedelta(seconds=AGAIN)] if missing else [])])
            await clock.sleep(max(AGAIN, pause.total_seconds()))
            await self.refresh(jwt)
            await self._put()

    async def _on_change(self, jwt: JwtSource, changed: asyncio.Event) -> None:
        while True:
            still_wanted()
            await changed.wait()
            changed.clear()
            await self.refresh(jwt)
            await self._put()

    async def refresh(self, jwt: JwtSource) -> None:
        """Fetch what is past half its life. Raises NoIdentity, when the source has none."""
        svid = self.wanted.svid_of(self._source.svids)
        for name, audience in self.wanted.tokens.items():
            try:
                self._tokens[name] = await jwt.fetch(audience, svid.id)
            except Problem as error:
                _log.warning("a token could not be had anew", file=name, error=error)
                held = self._tokens.get(name)
                if held is not None and (isinstance(error, NoIdentity) or held.expires_at <= jwt.clock.now()):
                    del self._tokens[name]

    async def _put(self) -> None:
        async with self._one:
            source, tokens = self._source, dict(self._tokens)
            svid = self.wanted.svid_of(source.svids)
            state = self.wanted.files(svid, source.bundles, source.revocations, tokens)
            changed = frozenset(name for name in state.keys() | self._last if state.get(name) != self._last.get(name))
            if not changed:
                return
            folder = self._files.put(state)
            self._last = state
            await self._told(Written(folder=folder, svid=svid, tokens=tokens, changed=changed))
