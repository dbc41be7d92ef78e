"""/v1/targets: what secrets are made in; checking one proves it with a probe user."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from broker.api.door import asked, door, gate
from broker.service import targets
from broker.wire.roles import TargetPage, TargetTold
from broker.wire.targets import (
    AdoptedTold,
    AdoptTarget,
    AuthorityTold,
    FindingsTold,
    FindingTold,
    HoldingTold,
    Reloaded,
    RotationTold,
)
from ca.runtime.web import Call, Route


class ReloadQuery(BaseModel):
    """`confirm=true`: end what the new settings leave no room for."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    confirm: bool = False


async def list_targets(call: Call) -> TargetPage:
    """Every target, by name."""
    return TargetPage(
        items=[
            TargetTold(
                name=one.name,
                engine=one.engine,
                state="down" if one.down else "up" if one.claimed else "unknown",
                roles=list(one.roles),
                trouble=one.foreign or _trouble(one.leaving),
            )
            for one in targets.listed(gate(call))
        ]
    )


def _trouble(leaving: Sequence[str]) -> str | None:
    """What an operator should know of a target."""
    return f"held: {', '.join(leaving)} left the settings while secrets are out" if leaving else None


async def check(call: Call) -> FindingsTold:
    """Prove a target."""
    name = call.path("name")
    found = await targets.check(gate(call), asked(call), name)
    told = [FindingTold(name=one.name, well=one.well, detail=one.detail, fix=one.fix) for one in found]
    return FindingsTold(target=name, well=all(one.well for one in found), findings=told)


async def adopt(call: Call) -> AdoptedTold:
    """End a target's quarantine."""
    said: AdoptTarget = call.body
    name = call.path("name")
    found = await targets.adopt(gate(call), asked(call), name, dry_run=said.dry_run)
    return AdoptedTold(target=name, adopted=not said.dry_run, strangers=list(found))


async def authority(call: Call) -> AuthorityTold:
    """What a target's owner installs."""
    name = call.path("name")
    return AuthorityTold(target=name, authority=await targets.authority(gate(call), asked(call), name))


async def rotate(call: Call) -> RotationTold:
    """Another password for the account the broker itself logs in as."""
    name = call.path("name")
    account, times = await targets.rotate(gate(call), asked(call), name)
    return RotationTold(target=name, account=account, times=times)


async def forget_rotation(call: Call) -> None:
    """What the settings name counts again."""
    await targets.forget_rotation(gate(call), asked(call), call.path("name"))


async def reload(call: Call) -> Reloaded:
    """Read the settings of targets again."""
    query: ReloadQuery = call.parameters
    found = await targets.read_again(asked(call), door(call).reload_targets, confirm=query.confirm)
    held = [HoldingTold(target=one.target, role=one.role, leases=one.leases, tasks=one.tasks) for one in found.held]
    return Reloaded(changed=list(found.changed), held=held, ending=found.ending)


ROUTES = (
    Route(
        "POST",
        "/v1/targets/{name}/adopt",
        adopt,
        summary="End a target's quarantine after a restore",
        body=AdoptTarget,
        answer=AdoptedTold,
    ),
    Route("GET", "/v1/targets", list_targets, summary="List targets", answer=TargetPage),
    Route(
        "POST",
        "/v1/targets/reload",
        reload,
        summary="Read the targets' settings again; what would end secrets is held",
        query=ReloadQuery,
        answer=Reloaded,
    ),
    Route("POST", "/v1/targets/{name}/check", check, summary="Prove a target with a probe user", answer=FindingsTold),
    Route("GET", "/v1/targets/{name}/authority", authority, summary="What its owner installs", answer=AuthorityTold),
    Route("POST", "/v1/targets/{name}/rotation", rotate, summary="Rotate our own password", answer=RotationTold),
    Route("DELETE", "/v1/targets/{name}/rotation", forget_rotation, summary="Back to the settings' own", status=204),
)
