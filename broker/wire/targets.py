"""Bodies of /v1/targets/…: what a check found, and what a reload changed."""

from __future__ import annotations

from pydantic import Field

from broker.wire.body import Asked, Told


class FindingTold(Told):
    """One thing a check looked at."""

    name: str
    well: bool
    detail: str
    fix: str | None = None


class FindingsTold(Told):
    """What a check found; `well` when nothing has to be done."""

    target: str
    well: bool
    findings: list[FindingTold]


class AuthorityTold(Told):
    """What a target's owner installs to believe what the broker signs: public, as text."""

    target: str
    authority: str


class AdoptTarget(Asked):
    """Somebody looked at what is there: its quarantine is over. With `dry_run` only the strangers are told."""

    dry_run: bool = False


class AdoptedTold(Told):
    """The principals at a target that no lease knows of; destroyed by the next sweeps once it is `adopted`."""

    target: str
    adopted: bool
    strangers: list[str]


class RotationTold(Told):
    """Whose password was rotated, and how often by now."""

    target: str
    account: str
    times: int


class HoldingTold(Told):
    """Secrets of a role that stands in the settings no more, or of a target that moved: they live until confirmed."""

    target: str
    role: str
    leases: int
    tasks: int


class Reloaded(Told):
    """The targets that changed, what is held because it would end secrets, and how many a confirmation is ending."""

    changed: list[str]
    held: list[HoldingTold] = Field(default_factory=list)
    ending: int = 0
