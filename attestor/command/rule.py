"""sojourn rule: which identity rules are in force, and what they give to whom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from attestor.command.options import admin_options
from ca.runtime.terminal import Console, Exit, Style, Styled, command_options


@click.group()
def rule() -> None:
    """List identity rules, explain who gets what and why."""


@rule.command("list")
@admin_options
@command_options
async def list_rules(console: Console, socket: Path | None, state: Path | None) -> None:
    """Show the rules in force at the attestor server, in the order in which they are tried.

    Example: sojourn rule list
    """
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import RuleList
    from ca.runtime.terminal import duration

    async with asking_admin(socket or running(state).server_admin) as admin:
        found = RuleList.model_validate(await admin.get("/v1/rules"))
    if console.json:
        console.result(found.model_dump())
        return
    console.table(
        ("rule", "on nodes", "when", "gives", "bind", "lives", "from"),
        [
            (
                one.name,
                ", ".join(one.nodes),
                ", ".join(one.when),
                one.spiffe_id,
                one.bind,
                duration(_seconds(one.x509_ttl_seconds)),
                one.source,
            )
            for one in found.rules
        ],
        empty="no rule is in force: nobody gets an identity",
    )
    for warning in found.warnings:
        console.say(Styled("suspicious  ", Style.WARN), warning)
    for trouble in found.trouble:
        console.say(Styled("not in force  ", Style.BAD), trouble)


@rule.command()
@click.option("--confirm", is_flag=True, help="Take them over, whoever loses an identity by them.")
@admin_options
@command_options
async def reload(console: Console, socket: Path | None, state: Path | None, *, confirm: bool) -> int:
    """Have the attestor server read its rule files again; what would take too many identities is held.

    `sojourn rule diff` says who would lose what.

    Example: sojourn rule reload --confirm
    """
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import RuleList

    async with asking_admin(socket or running(state).server_admin) as admin:
        path = "/v1/rules/reload" + ("?confirm=true" if confirm else "")
        found = RuleList.model_validate(await admin.post(path))
    console.result(found.model_dump(), f"{len(found.rules)} rules are in force, version {found.version[:12]}")
    if not console.json:
        for trouble in found.trouble:
            console.say(Styled("not in force  ", Style.BAD), trouble)
    return Exit.FAILED if found.trouble else Exit.OK


@rule.command()
@click.option("--pid", type=click.IntRange(min=1), help="A process of this machine.")
@click.option("--node", metavar="NAME", help="Instead of --pid: a process on this node …")
@click.option("--selector", "selectors", multiple=True, help="… of which this is known; may be given again.")
@click.option("--strength", default="own-uid", show_default=True, help="… and attested with this strength.")
@admin_options
@command_options
async def explain(
    *,
    console: Console,
    pid: int | None,
    node: str | None,
    selectors: Sequence[str],
    strength: str,
    socket: Path | None,
    state: Path | None,
) -> None:
    """Say what a process gets, by which rule, and why the other rules give it nothing.

    With --pid the node agent looks at the process as if it connected now. With --node and --selector the server is
    asked what would be.

    Example: sojourn rule explain --pid $$
    """
    if (pid is None) == (node is None) or (pid is not None and selectors):
        raise click.UsageError("expected --pid, or --node with one or more --selector")
    answer = (
        await _explain_process(pid, socket, state)
        if pid is not None
        else await _explain_selectors({"node": node, "selectors": list(selectors), "strength": strength}, socket, state)
    )
    if console.json:
        console.result(answer)
        return
    _show(console, answer)


async def _explain_process(pid: int, socket: Path | None, state: Path | None) -> dict[str, Any]:
    from attestor.command.running import asking_admin, running
    from attestor.wire.held import ProcessExplained

    async with asking_admin(socket or running(state).node_agent_admin) as admin:
        return ProcessExplained.model_validate(await admin.post("/v1/explain", {"pid": pid})).model_dump()


async def _explain_selectors(body: dict[str, Any], socket: Path | None, state: Path | None) -> dict[str, Any]:
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import ExplainAnswer

    async with asking_admin(socket or running(state).server_admin) as admin:
        return ExplainAnswer.model_validate(await admin.post("/v1/rules/explain", body)).model_dump()


@rule.command("diff")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--as", "place", type=click.Path(path_type=Path), help="Which of the server's files it would replace.")
@admin_options
@command_options
async def diff(*, console: Console, file: Path, place: Path | None, socket: Path | None, state: Path | None) -> None:
    """Say who would gain and who would lose identities if FILE were in force; nothing is changed.

    FILE is read here and compared with the rules in force at the attestor server. Without --as it stands for itself:
    the server must be told to read that very file, or its folder. A file that would be refused is refused here.

    Example: sojourn rule diff ./rules-new.yaml --as /etc/sojourn/rules.yaml
    """
    from attestor.command.running import asking_admin, running
    from attestor.wire.admin import RuleDifference

    body = {"path": str((place or file).absolute()), "text": _text(file)}
    async with asking_admin(socket or running(state).server_admin) as admin:
        found = RuleDifference.model_validate(await admin.post("/v1/rules/difference", body))
    if console.json:
        console.result(found.model_dump())
    else:
        _show_difference(console, found)


def _text(file: Path) -> str:
    from ca.errors import Malformed

    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Malformed(f"`{file}` can't be read: expected a text in UTF-8") from error


def _show_difference(console: Console, found: Any) -> None:
    for word, style, names in (
        ("added    ", Style.GOOD, found.added),
        ("removed  ", Style.BAD, found.removed),
        ("changed  ", Style.WARN, found.changed),
    ):
        for name in names:
            console.say(Styled(word, style), name)
    for warning in found.warnings:
        console.say(Styled("suspicious  ", Style.WARN), warning)
    for one in found.instances:
        console.say(Styled(f"instance {one.instance}", Style.BOLD), f"  on {one.node}")
        for word, style, ids in (
            ("  loses    ", Style.BAD, one.loses),
            ("  gains    ", Style.GOOD, one.gains),
            ("  changed  ", Style.WARN, one.changed),
        ):
            for spiffe_id in ids:
                console.say(Styled(word, style), spiffe_id)
        if one.default:
            console.say(Styled("  default  ", Style.WARN), one.default)
    more = found.affected - len(found.instances)
    console.say(
        f"of {found.looked_at} live instances {found.losing} would lose an identity, {found.gaining} would gain one"
        + (f"; {more} more are affected" if more else "")
    )


def _show(console: Console, answer: dict[str, Any]) -> None:
    if "pid" in answer:
        instance = f"instance {answer['instance']}" if answer["instance"] else "nothing held for it yet"
        console.say(Styled(f"process {answer['pid']}", Style.BOLD), f"  strength {answer['strength']}, {instance}")
    for selector in answer["selectors"] if "pid" in answer else answer["node_selectors"]:
        console.say("  ", Styled(selector, Style.DIM))
    _show_place(console, answer)
    for one in answer["identities"]:
        hint = f", hint `{one['hint']}`" if one["hint"] else ""
        console.say(Styled("gets  ", Style.GOOD), one["spiffe_id"], f"  by `{one['rule']}`, bind {one['bind']}{hint}")
        console.say("      ", Styled(_issued(one), Style.DIM))
    if not answer["identities"]:
        console.say(Styled("gets nothing", Style.BAD))
    for one in answer["unmatched"]:
        console.say(Styled("not   ", Style.WARN), f"`{one['rule']}`: {one['reason']}")


def _show_place(console: Console, answer: dict[str, Any]) -> None:
    """Where a process is, whom it descends from, and who said nothing of it."""
    for one in answer.get("within", ()):
        instance = f", instance {one['instance']}" if one["instance"] else ""
        watched = "" if one["watched"] else ", which can't be watched from here"
        console.say(Styled(f"in {one['kind']}  ", Style.DIM), f"{one['cgroup']}{watched}{instance}")
    for one in answer.get("ancestors", ()):
        ids = ", ".join(one["spiffe_ids"]) or "nothing until it calls again"
        console.say(Styled("child of  ", Style.DIM), f"process {one['pid']}, which holds {ids}")
    for one in answer.get("sources", ()):
        if one["unsaid"]:
            console.say(Styled("unsaid  ", Style.WARN), f"`{one['name']}`: {one['unsaid']}")


def _issued(identity: dict[str, Any]) -> str:
    """What would be issued for it."""
    from ca.runtime.terminal import duration

    parts = [
        f"X.509 for {duration(_seconds(identity['x509_ttl_seconds']))}",
        f"JWT for {duration(_seconds(identity['jwt_ttl_seconds']))}",
    ]
    for key, words in (("dns_names", "DNS"), ("audiences", "audiences only"), ("federates_with", "federates with")):
        if identity[key]:
            parts.append(f"{words} {', '.join(identity[key])}")
    return "; ".join(parts)


def _seconds(amount: int) -> Any:
    from datetime import timedelta

    return timedelta(seconds=amount)
