"""What `target check` proves of AWS: who we are there, and each role by a session that is used once and thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from broker.engines.aws.signing import Keys
from broker.engines.aws.sts import Sts
from broker.engines.protocol import Finding, Lent
from broker.model.role import Role
from ca.errors import Problem

if TYPE_CHECKING:
    from broker.engines.aws import Aws

_SOON = timedelta(seconds=10)


async def examine(engine: Aws, sts: Sts, lent: Lent, roles: Sequence[Role], prefix: str) -> Sequence[Finding]:
    """Look at everything a grant needs. A probe's session can't be taken back: its keys are kept by nobody."""
    found = [await _ourselves(sts)] if sts.settings.authentication == "keys" else []
    if not roles and not found:
        detail = f"no role to be tried; sessions come from {sts.settings.url}"
        return [Finding(name="roles", well=True, detail=detail)]
    return [*found, *[await _role(engine, sts, lent, role, f"{prefix}probe") for role in roles]]


async def _ourselves(sts: Sts) -> Finding:
    try:
        caller = await sts.caller(sts.own_keys())
    except Problem as problem:
        fix = "look at `access_key`, `secret_key`, `region`, the network and the broker's clock"
        return Finding(name="own keys", well=False, detail=str(problem), fix=fix)
    if caller.arn.endswith(":root"):
        fix = "make an IAM user that may do nothing but `sts:AssumeRole` on the roles named here"
        return Finding(name="own keys", well=False, detail="they are the account's root keys", fix=fix)
    return Finding(name="own keys", well=True, detail=f"AWS takes them for {caller.arn}")


async def _role(engine: Aws, sts: Sts, lent: Lent, role: Role, name: str) -> Finding:
    """A session of the role, obtained, and shown to AWS once."""
    said, now = f"session of {role.full_name}", lent.clock.now()
    try:
        handle = engine.plan(role, name)
        issued = await engine.create(handle, role, now + engine.shortest(handle), now + _SOON)
        keys = Keys(
            access_key=str(issued.fields["access_key_id"]),
            secret_key=issued.secret["secret_access_key"],
            session=issued.secret["session_token"],
        )
        caller = await sts.caller(keys)
    except Problem as problem:
        fix = "look at the role's trust policy: the broker's SPIFFE ID and audience, or its user; and at its settings"
        return Finding(name=said, well=False, detail=str(problem), fix=fix)
    detail = f"AWS takes its holder for {caller.arn}; it ends by itself at {issued.fields['expires_at']}"
    return Finding(name=said, well=True, detail=detail)
