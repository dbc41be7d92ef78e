"""What every handler needs: the gate, the clock, and a request turned into an `Asked`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from broker.events.feed import Feed
from broker.model.caller import Caller, Workload
from broker.service.gate import Gate
from broker.service.operators import KnownOperators
from broker.service.proofs import Asked, Shown
from broker.service.targets import Reload
from broker.wire.proof import HEADER
from ca.errors import Malformed
from ca.runtime.web import Call
from ca.spiffe.id import TrustDomain


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What the handlers of one listener share."""

    gate: Gate
    feed: Feed
    operators: KnownOperators
    reload_targets: Reload


_KEY_HEADER = "Idempotency-Key"
_LONGEST_KEY = 128
DOOR = web.AppKey("door", Door)


class PageQuery(BaseModel):
    """Which part of a list: what comes after a cursor, and how much of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    after: Annotated[str, StringConstraints(max_length=200)] | None = None
    limit: int = Field(default=100, ge=1, le=1000)


def door(call: Call) -> Door:
    """The door this request came through."""
    return call.request.app[DOOR]


def gate(call: Call) -> Gate:
    """The gate behind it."""
    return call.request.app[DOOR].gate


def asked(call: Call) -> Asked:
    """Who asks, what was shown, and the moment it is judged by."""
    return Asked(
        caller=_ours(call.caller, gate(call).trust_domain),
        shown=Shown(header=call.request.headers.get(HEADER), method=call.request.method, path=call.request.path),
        now=gate(call).world.clock.now(),
    )


def idempotency_key(call: Call) -> str | None:
    """What makes the same request again the same one. Raises Malformed."""
    key: str | None = call.request.headers.get(_KEY_HEADER)
    if key is not None and not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise Malformed(f"`{_KEY_HEADER}` is 1 to {_LONGEST_KEY} printable characters")
    return key


def _ours(caller: Caller, trust_domain: TrustDomain) -> Caller:
    """An instance is named by our own authorities or not at all: a federated one may write ours into its leaves."""
    if isinstance(caller, Workload) and caller.id.trust_domain != trust_domain:
        return replace(caller, instance=None)
    return caller
