"""A value that rests sealed and leaves through a lease; whoever was told it knows it until it is replaced elsewhere."""

from __future__ import annotations

from broker.engines.protocol import Finding, Issued, Vault
from broker.engines.static.settings import RoleSettings
from broker.model.role import Guarantee, IfDown, NewAccess, OpenSessions
from ca.errors import NotFound, Problem, Unavailable

GUARANTEE = Guarantee(
    new_access=NewAccess.AT_ROTATION,
    new_access_within=None,
    open_sessions=OpenSessions.SURVIVE,
    open_sessions_within=None,
    if_down=IfDown.NOTHING_ENDS_IT,
    if_down_within=None,
)

_NO_SEAL = "nothing rests here: the broker has no sealing key (`keys.seal`)"


async def issued(vault: Vault | None, resting_name: str, said: RoleSettings, role: str) -> Issued:
    """The newest version. Raises NotFound: none was put; SealBroken, Unavailable."""
    if vault is None:
        raise Unavailable(_NO_SEAL)
    found = await vault.newest(resting_name)
    if found is None:
        raise NotFound(f"no value was put for `{role}`: sojourn secret put {_shown(resting_name)}")
    return Issued(fields={**said.fields, "version": found[0]}, secret={said.handed_as: found[1]})


def vault_finding(vault: Vault | None) -> Finding:
    """Whether values can rest."""
    if vault is None:
        return Finding(name="vault", well=False, detail=_NO_SEAL, fix="name a sealing key: docs/sealed-values.md")
    return Finding(name="vault", well=True, detail="values rest sealed")


async def finding(vault: Vault | None, resting_name: str, role: str) -> Finding:
    """Whether one value is there and opens."""
    name, put = f"value of {role}", f"sojourn secret put {_shown(resting_name)}"
    try:
        found = None if vault is None else await vault.newest(resting_name)
    except Problem as problem:
        return Finding(name=name, well=False, detail=str(problem), fix=put)
    if found is None:
        return Finding(name=name, well=False, detail="no value was put", fix=put)
    return Finding(name=name, well=True, detail=f"version {found[0]}")


def _shown(resting_name: str) -> str:
    return resting_name.partition("/")[2]
