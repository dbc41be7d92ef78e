"""sojourn policy: judge policies before a broker loads them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attestor.command.options import Length
from broker.command.options import LEVELS
from ca.runtime.terminal import Console, Exit, Style, Styled, command_options

if TYPE_CHECKING:
    from broker.model.decision import Decision
    from broker.policy.cases import Outcome

STRENGTHS = click.Choice(["none", "weak-peer", "shared-uid", "own-uid", "container", "pod", "tpm"])


@click.group()
def policy() -> None:
    """Check, test and explain policies."""


@policy.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@command_options
def check(console: Console, files: tuple[Path, ...]) -> int:
    """Read files, or folders of `*.cedar`, as one set, and tell every fault.

    Example: sojourn policy check /etc/sojourn/policies
    """
    from broker.policy.source import BadPolicy, PolicySource

    try:
        found = PolicySource.of(*files).load()
    except BadPolicy as problem:
        for fault in problem.faults:
            console.error(fault)
        return Exit.FAILED
    rows = [(one.id, "permit" if one.permits else "forbid", one.reason, one.place) for one in found.policies.values()]
    if console.json:
        listed = [dict(zip(("id", "effect", "reason", "place"), row, strict=True)) for row in rows]
        console.result({"version": found.version, "policies": listed})
        return Exit.OK
    console.table(("policy", "effect", "reason", "where"), rows)
    console.say(Styled("well", Style.GOOD), f"  version {found.version[:12]}")
    return Exit.OK


@policy.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@command_options
def test(console: Console, path: Path) -> int:
    """Run the cases of a `tests.yaml`, or of the one in a folder, against the policies it names.

    Example: sojourn policy test config/policies
    """
    from broker.policy.cases import run_file
    from ca.runtime.clock import SystemClock

    outcomes = run_file(path / "tests.yaml" if path.is_dir() else path, SystemClock().now())
    if console.json:
        console.result([_told(one) for one in outcomes])
    else:
        _table(console, outcomes)
    return Exit.OK if all(one.holds for one in outcomes) else Exit.FAILED


def _table(console: Console, outcomes: tuple[Outcome, ...]) -> None:
    console.table(
        ("case", "came out", "answer", "by"),
        [
            (
                one.case,
                Styled("as expected", Style.GOOD) if one.holds else Styled("otherwise", Style.BAD),
                str(one.decision.effect),
                ", ".join(one.decision.policies) or "no policy",
            )
            for one in outcomes
        ],
    )
    for one in outcomes:
        if not one.holds:
            console.say(Styled(f"{one.case}  ", Style.BAD), one.trouble)


def _told(one: Outcome) -> dict[str, Any]:
    return {
        "case": one.case,
        "holds": one.holds,
        "effect": str(one.decision.effect),
        "policies": list(one.decision.policies),
        "reason": one.decision.reason,
        "nearest": list(one.decision.nearest),
        "trouble": one.trouble or None,
    }


@policy.command()
@click.option("--agent", required=True, metavar="SPIFFE-ID", help="Who asks.")
@click.option("--role", metavar="TARGET/ROLE", help="The role it asks for; left out: it opens a task.")
@click.option("--sensitivity", type=LEVELS, default="internal", show_default=True, help="Of the role, as configured.")
@click.option("--engine", default="postgres", show_default=True, help="Of the role.")
@click.option("--strength", type=STRENGTHS, default="own-uid", show_default=True, help="Of its attestation.")
@click.option("--confidence", type=click.IntRange(0, 100), default=0, show_default=True, help="What it claims.")
@click.option("--scope", "scopes", multiple=True, metavar="ROLE", help="The task's roles (default: the one asked for).")
@click.option("--ceiling", type=LEVELS, help="The task's ceiling (default: the role's sensitivity).")
@click.option("--lasts", type=Length(), help="When the task ends by itself.")
@click.option("--tool", metavar="NAME", help="The tool it says the secret is for.")
@click.option("--destination", metavar="NAME", help="Where it says the secret is used.")
@click.option(
    "--policies",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Files or folders (default: the starter).",
)
@command_options
def explain(console: Console, files: tuple[Path, ...], **said: Any) -> int:
    """Decide offline, and say by which policies, why, and which smallest change would have permitted it.

    Example: sojourn policy explain --agent spiffe://example.org/agents/billing --role orders-db/readonly
    """
    decision = _decide(files, **said)
    if console.json:
        console.result(
            {
                "effect": str(decision.effect),
                "policies": list(decision.policies),
                "reason": decision.reason,
                "nearest": list(decision.nearest),
                "policy_version": decision.policy_version,
            }
        )
    else:
        _explain(console, decision)
    return Exit.OK if decision.permits else Exit.FAILED


def _explain(console: Console, decision: Decision) -> None:
    style = Style.GOOD if decision.permits else Style.BAD
    console.say(Styled(str(decision.effect), style), f"  {decision.reason}")
    console.say(Styled("  decided by  ", Style.DIM), ", ".join(decision.policies) or "no policy: nothing permits it")
    for change in decision.nearest:
        console.say(Styled("  nearest     ", Style.DIM), change)


def _decide(files: tuple[Path, ...], *, agent: str, role: str | None, lasts: timedelta | None, **said: Any) -> Decision:
    """One case of `sojourn policy test`, made of options."""
    import json

    from broker.policy.cases import Cases, run
    from broker.policy.source import PolicySource, starter
    from broker.wire.body import write_length
    from ca.runtime.clock import SystemClock
    from ca.runtime.settings import loads
    from ca.spiffe.id import SpiffeId

    policies = PolicySource.of(*files).load() if files else starter()
    case = _case(agent, role, **said)
    if lasts is not None:
        case["lasts"] = write_length(lasts)
    roles = {} if role is None else {role: {"engine": said["engine"], "sensitivity": said["sensitivity"]}}
    domain = str(SpiffeId.parse(agent).trust_domain)
    text = json.dumps({"policies": [], "trust_domain": domain, "roles": roles, "cases": [case]})
    cases = loads(text, "what was asked", Cases)
    return next(iter(run(cases, policies, SystemClock().now()))).decision


def _case(
    agent: str,
    role: str | None,
    *,
    sensitivity: str,
    strength: str,
    confidence: int,
    scopes: tuple[str, ...],
    ceiling: str | None,
    tool: str | None,
    destination: str | None,
    **_: Any,
) -> dict[str, Any]:
    act: dict[str, Any] = {"action": "open" if role is None else "obtain", "confidence": confidence}
    named = {"resource": role, "tool": tool, "destination": destination}
    act |= {name: value for name, value in named.items() if value is not None}
    scope = {
        "roles": list(scopes or ((role,) if role else ())),
        "tools": [tool] if tool else [],
        "destinations": [destination] if destination else [],
        "sensitivity": ceiling or sensitivity,
    }
    return {"name": "asked", "agent": agent, "strength": strength, "scope": scope, "act": act, "expect": "permit"}
