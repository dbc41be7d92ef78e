"""What processes are entitled to, asked of the server once per kind of process and version of the rules.

The answer depends on what a process was found to be, not on which one it is; so the next of its kind, and whoever asks
again and again without being entitled to anything, costs the server nothing. A process that descends from another
instance may inherit from it, which no version tells, and one that has identities of its own, such as a task's, is of no
kind: their answers are never kept. Nothing rests on this memory: the server judges again before each signature.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from attestor.instance import Strength
from attestor.node_agent.upstream import Issuer
from attestor.selector import Selectors
from attestor.wire.attestation import Attestation, Identity
from ca.errors import Malformed

MOST_KINDS = 1024


class Entitlements:
    """Asks `issuer`, and remembers."""

    def __init__(self, issuer: Issuer, *, most: int = MOST_KINDS) -> None:
        self._issuer, self._most = issuer, most
        self._version = ""
        self._known: OrderedDict[tuple[Selectors, Strength], tuple[Identity, ...]] = OrderedDict()

    def version(self, instance: str) -> str:
        """By what `instance` is to be judged: another one, and it is to be asked for again."""
        return f"{self._issuer.rules_version} {self._issuer.personal.get(instance, '')}"

    async def of(self, attestations: Sequence[Attestation]) -> list[tuple[Identity, ...]]:
        """The identities of each. Raises Unavailable."""
        version = self._issuer.rules_version
        if version != self._version:
            self._known.clear()
            self._version = version
        found = [self._remembered(one) for one in attestations]
        unknown = [one for one, known in zip(attestations, found, strict=True) if known is None]
        answers = iter(await self._ask(unknown))
        return [next(answers) if known is None else known for known in found]

    async def _ask(self, attestations: Sequence[Attestation]) -> list[tuple[Identity, ...]]:
        if not attestations:
            return []
        version = self._issuer.rules_version
        answers = await self._issuer.resolve(attestations)
        if [one.instance for one in answers] != [one.instance for one in attestations]:
            raise Malformed("the attestor server answered for another instance than the one asked for")
        if version == self._issuer.rules_version:  # else the answer may be by either
            for attestation, answer in zip(attestations, answers, strict=True):
                self._remember(attestation, answer.identities)
        return [one.identities for one in answers]

    def _remembered(self, attestation: Attestation) -> tuple[Identity, ...] | None:
        if attestation.ancestors or attestation.instance in self._issuer.personal:
            return None
        return self._known.get((attestation.selectors, attestation.strength))

    def _remember(self, attestation: Attestation, identities: tuple[Identity, ...]) -> None:
        if not attestation.ancestors and not any(one.ends_at for one in identities):
            self._known[attestation.selectors, attestation.strength] = identities
            while len(self._known) > self._most:
                self._known.popitem(last=False)
