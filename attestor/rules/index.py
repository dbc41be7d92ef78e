"""Which rules of a set can match at all, found without looking at the others.

A rule is a conjunction of groups, over what the server verified about the node and what was found about the process.
It is filed under the one group whose selectors are the rarest in the whole set: where none of them was found the rule
can't match, so it is not looked at. What is found this way is a superset, in the order of the rules; the rule itself
still decides. With ten thousand rules of one team each, a process meets those of its own.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from attestor.rules.model import Rule
from attestor.selector import Selector, Selectors


class _Side(Enum):
    """Of whom a selector is said."""

    NODE = "node"
    WORKLOAD = "workload"


_Key: TypeAlias = tuple[_Side, Selector]


@dataclass(frozen=True, slots=True)
class Index:
    """The places of a set's rules by the selectors they can't do without."""

    _by_key: dict[_Key, tuple[int, ...]]

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> Index:
        """File every rule of the set."""
        seen = Counter(key for rule in rules for group in _groups(rule) for key in group)
        filed: defaultdict[_Key, list[int]] = defaultdict(list)
        for place, rule in enumerate(rules):
            rarest = min(_groups(rule), key=lambda group: sum(seen[key] for key in group))
            for key in dict.fromkeys(rarest):
                filed[key].append(place)
        return cls({key: tuple(places) for key, places in filed.items()})

    def candidates(self, *, node: Selectors, workload: Selectors) -> list[int]:
        """The places of every rule that may match, in the order of the set."""
        keys = [*((_Side.NODE, one) for one in node), *((_Side.WORKLOAD, one) for one in workload)]
        return sorted({place for key in keys for place in self._by_key.get(key, ())})


def _groups(rule: Rule) -> Iterator[list[_Key]]:
    for side, condition in ((_Side.NODE, rule.nodes), (_Side.WORKLOAD, rule.when)):
        for group in condition.groups if condition is not None else ():
            yield [(side, one) for one in group]
