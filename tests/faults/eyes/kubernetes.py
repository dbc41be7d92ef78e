"""A namespace of a Kubernetes cluster as its owner sees it, over the API: Secrets, and a TokenReview at the door."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from faults.eyes.http import Https

_CLAIM = "sj-claim"
_ENDED = "sojourn-ended-at"
_CLEAR = re.compile(r'"(?:stringData|data)"\s*:\s*\{\s*"\S{0,12}')


@dataclass
class KubernetesEyes:
    """`token` is one that may do everything; `log` has what was asked of the API, each with its body."""

    https: Https
    namespace: str
    token: str = field(repr=False)
    log: Path

    lasting = False
    lingers = True

    async def principals(self, prefix: str) -> dict[str, bool]:
        """Every Secret tokens may be bound to, and whether one that is bound to it is good."""
        metas = [one["metadata"] for one in self._secrets() if one["metadata"]["name"] != _CLAIM]
        found = {meta["name"].replace("-", "_"): _ENDED not in meta.get("annotations", {}) for meta in metas}
        return {name: good for name, good in found.items() if name.startswith(prefix)}

    async def sessions(self, prefix: str) -> list[tuple[str, str]]:
        """None is kept: each request shows the token."""
        return []

    async def opens(self, user: str, secret: str) -> bool:
        """What the API tells whoever is shown it."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": secret}}
        answer = self._ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
        return bool(answer["status"]["authenticated"])

    def clear(self, log: bytes) -> Iterator[str]:
        """What a Secret of ours was given to hold: it holds nothing."""
        yield from _CLEAR.findall(log.decode(errors="replace"))

    async def close(self) -> None:
        """Look no more."""
        self.https.close()

    def _secrets(self) -> Iterator[Any]:
        more = ""
        while True:
            query = urlencode({"limit": 250, **({"continue": more} if more else {})})
            page = self._ask("GET", f"/api/v1/namespaces/{self.namespace}/secrets?{query}")
            yield from page["items"]
            more = page["metadata"].get("continue", "")
            if not more:
                return

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        status, answer = self.https.ask(method, path, headers, None if body is None else json.dumps(body).encode())
        if status not in {200, 201}:
            raise RuntimeError(f"the owner was refused: {status}")
        return json.loads(answer)
