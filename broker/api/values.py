"""/v1/values: what operators put where it rests sealed; it leaves through leases only."""

from __future__ import annotations

from broker.api.door import asked, gate
from broker.service import values
from broker.wire.values import PutValue, ValuePut, VersionsTold, VersionTold
from ca.errors import Malformed
from ca.runtime.web import Call, Route


async def put(call: Call) -> ValuePut:
    """A further version."""
    ask: PutValue = call.body
    number = await values.put(gate(call), asked(call), call.path("target"), call.path("name"), ask.value)
    return ValuePut(version=number)


async def versions(call: Call) -> VersionsTold:
    """What is known of every version."""
    target, name = call.path("target"), call.path("name")
    found = await values.versions(gate(call), asked(call), target, name)
    told = [
        VersionTold(version=one.number, made_at=one.made_at, destroyed_at=one.destroyed_at, key=one.key_name)
        for one in found
    ]
    return VersionsTold(value=f"{target}/{name}", versions=told)


async def destroy(call: Call) -> None:
    """Let one version be no more."""
    said = call.path("version")
    if not (said.isascii() and said.isdigit() and len(said) <= 9):
        raise Malformed("a version is a whole number from 1")
    await values.destroy(gate(call), asked(call), call.path("target"), call.path("name"), int(said))


_VALUE = "/v1/values/{target}/{name}"
ROUTES = (
    Route("PUT", _VALUE, put, summary="Put a value", body=PutValue, answer=ValuePut, status=201),
    Route("GET", _VALUE, versions, summary="Its versions", answer=VersionsTold),
    Route("DELETE", _VALUE + "/{version}", destroy, summary="Destroy a version", status=204),
)
