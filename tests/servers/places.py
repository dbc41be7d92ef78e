"""Every implementation the contract of engines is tried on: real targets, and the fake the other tests stand on.

Each PostgreSQL that is installed comes twice, with an admin that is no superuser and with one that is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from broker.engines.protocol import Issued, Making
from broker.model.role import Role
from ca.runtime.clock import Clock, SystemClock
from fakes.target import FakeEngine, FakeTarget, Session
from fakes.world import role
from servers.aws_place import aws_place
from servers.kubernetes_place import kubernetes_place
from servers.mariadb_place import mariadb_place
from servers.oauth_place import oauth_place
from servers.place import Kind, Trait, new_prefix
from servers.postgres import installations
from servers.postgres_place import postgres_place
from servers.postgres_tls import certified_place, with_tls
from servers.rabbitmq_place import rabbitmq_place
from servers.redis_place import redis_place
from servers.sshd_place import sshd_place
from servers.static_place import account_place, postgres_account_place, shelf_place
from servers.svid_place import svid_place


@dataclass
class FakePlace:
    engine: FakeEngine
    role: Role
    clock: Clock
    prefix: str

    async def login(self, issued: Issued) -> Session | None:
        return await self.engine.target.login(issued)


@asynccontextmanager
async def fake_place(making: Making = Making.CREATE_ONLY) -> AsyncIterator[FakePlace]:
    """The target in memory."""
    clock = SystemClock()
    yield FakePlace(FakeEngine(FakeTarget(clock), making=making), role(), clock, new_prefix())


_T = Trait
_WHOLE = frozenset(Trait) - {_T.ROTATES, _T.EXCLUSIVE}

PLACES: dict[str, Kind] = {
    "fake": Kind(engine="fake", open=fake_place, traits=_WHOLE - {_T.PROVES}),
    "fake-upsert": Kind(
        engine="fake", open=partial(fake_place, Making.UPSERT), traits=_WHOLE - {_T.PROVES, _T.CREATE_ONLY}
    ),
    "svid": Kind(
        engine="svid",
        open=svid_place,
        traits=frozenset({_T.LISTS, _T.CREATE_ONLY, _T.AT_ONCE, _T.EXPIRES, _T.RENEWS, _T.JUDGES}),
    ),
}
_REDIS: dict[str, dict[str, Any]] = {"redis": {}, "redis-aclfile": {"aclfile": True}, "redis-nodes": {"nodes": 1}}
for _name, _more in _REDIS.items():
    PLACES[_name] = Kind(
        engine="redis",
        open=partial(redis_place, **_more),
        traits=frozenset(Trait) - {_T.EXPIRES, _T.CREATE_ONLY, _T.EXCLUSIVE},
    )
_MARIADB: dict[str, dict[str, Any]] = {
    "mariadb": {},
    "mariadb-role": {"roles": True},
    "mariadb-ed25519": {"secret_kind": "ed25519"},
}
for _name, _more in _MARIADB.items():
    PLACES[_name] = Kind(
        engine="mysql", open=partial(mariadb_place, **_more), traits=frozenset(Trait) - {_T.EXPIRES, _T.EXCLUSIVE}
    )
_TOKEN = frozenset({_T.PROVES, _T.HANDS_OVER, _T.JUDGES, _T.EXPIRES})
_OAUTH: dict[str, dict[str, Any]] = {
    "oauth": {},
    "oauth-secret": {"authentication": "client_secret_basic"},
    "oauth-refresh": {"grant": "refresh_token"},
}
for _name, _more in _OAUTH.items():
    PLACES[_name] = Kind(engine="oauth", open=partial(oauth_place, **_more), traits=_TOKEN | {_T.AT_ONCE})
PLACES["oauth-at-expiry"] = Kind(engine="oauth", open=partial(oauth_place, ends="at-expiry"), traits=_TOKEN)
PLACES["aws"] = Kind(engine="aws", open=aws_place, traits=_TOKEN)
PLACES["aws-keys"] = Kind(engine="aws", open=partial(aws_place, authentication="keys"), traits=_TOKEN)
_BOUND = frozenset({_T.LISTS, _T.CLAIMS, _T.CREATE_ONLY, _T.AT_ONCE})
PLACES["kubernetes"] = Kind(engine="kubernetes", open=kubernetes_place, traits=_TOKEN | _BOUND)
PLACES["static"] = Kind(
    engine="static", open=shelf_place, traits=frozenset({_T.PROVES, _T.HANDS_OVER, _T.RENEWS, _T.JUDGES})
)
_LENT = frozenset({_T.PROVES, _T.HANDS_OVER, _T.JUDGES, _T.AT_ONCE, _T.CUTS, _T.EXCLUSIVE})
PLACES["static-account"] = Kind(engine="static", open=account_place, traits=_LENT)
PLACES["static-postgres-account"] = Kind(engine="static", open=postgres_account_place, traits=_LENT)
PLACES["rabbitmq"] = Kind(
    engine="rabbitmq", open=rabbitmq_place, traits=frozenset(Trait) - {_T.EXPIRES, _T.CREATE_ONLY, _T.EXCLUSIVE}
)
_SIGNED = frozenset({_T.PROVES, _T.EXPIRES, _T.HANDS_OVER, _T.JUDGES})
PLACES["ssh"] = Kind(
    engine="ssh",
    open=sshd_place,
    traits=_SIGNED | {_T.LISTS, _T.CLAIMS, _T.CREATE_ONLY, _T.AT_ONCE, _T.REPLACES},
)
PLACES["ssh-unlisted"] = Kind(engine="ssh", open=partial(sshd_place, reads_list=False), traits=_SIGNED)
for _name, _binaries in installations().items():
    for _suffix, _superuser in (("", False), ("-superuser", True)):
        PLACES[f"{_name}{_suffix}"] = Kind(
            engine="postgres",
            open=partial(postgres_place, _binaries, superuser=_superuser),
            traits=_WHOLE | {_T.ROTATES},
        )
_CERTIFIED = _WHOLE - {_T.REPLACES, _T.RENEWS}
for _name, _binaries in with_tls().items():
    PLACES[f"{_name}-certificate"] = Kind(
        engine="postgres", open=partial(certified_place, _binaries), traits=_CERTIFIED | {_T.ROTATES}
    )


def having(*traits: Trait, lacking: Trait | None = None) -> list[str]:
    """The names of those that have all of `traits`, and not `lacking`."""
    return [
        name
        for name, kind in PLACES.items()
        if kind.traits.issuperset(traits) and (lacking is None or lacking not in kind.traits)
    ]
