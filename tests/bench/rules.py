"""What a process is entitled to among ten thousand rules, beside a set that holds the matching rule alone.

Each rule is one team's: its own user on one node; what is asked about has what all of them ask for, too.
"""

from __future__ import annotations

from pathlib import Path

from attestor.instance import Strength
from attestor.rules.evaluate import Evaluation, Facts
from attestor.rules.model import Condition, Rule, RuleSet
from attestor.rules.template import Template
from attestor.selector import parse_all
from bench.table import Row, time_rows
from bench.timing import Spread, now
from ca.spiffe.id import TrustDomain

DOMAIN = TrustDomain.parse("example.org")
RULES, _TIMES = 10_000, 2000


async def measure(folder: Path) -> list[Row]:
    """The same process asked about, again and again."""
    del folder
    many = [_rule(n) for n in range(RULES)]
    facts = Facts(
        node=parse_all(["node:name:n"]),
        workload=parse_all([f"unix:uid:{1000 + RULES // 2}", "unix:gid:1", "unix:path:/usr/bin/agent"]),
        strength=Strength.OWN_UID,
    )
    ours, alone = _asked(many, facts), _asked([many[RULES // 2]], facts)
    return time_rows("rules", "entitled by 10,000 rules", ours, alone, "the rule that matches, in a set of its own")


def _rule(n: int) -> Rule:
    return Rule(
        name=f"team-{n}",
        source="bench",
        nodes=Condition.all_of(parse_all(["node:name:n"])),
        when=Condition.all_of(parse_all([f"unix:uid:{1000 + n}", "unix:gid:1"])),
        template=Template.parse(f"/team/{n}", DOMAIN),
    )


def _asked(rules: list[Rule], facts: Facts) -> Spread:
    evaluation = Evaluation(RuleSet(trust_domain=DOMAIN, rules=tuple(rules)))
    took = []
    for _ in range(_TIMES):
        begun = now()
        found = evaluation.entitled(facts)
        took.append(now() - begun)
        if [one.id.path for one in found] != [f"/team/{RULES // 2}"]:
            raise RuntimeError("the rules of the bench gave something else")
    return Spread.of(took)
