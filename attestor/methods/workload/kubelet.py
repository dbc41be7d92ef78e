"""The kubelet of this machine: which pods it runs, asked over TLS.

However many processes wait, one question is under way, and a new one begins at most every half second. Each answer has
a number: whoever did not find its container in one waits for a newer one, and whoever waited while a question failed is
told of that failure instead of asking it again. What it says may be anything: a pod that can't be read is none, and two
that claim the same uid or the same container are both nobody.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from attestor.methods.platform.pods import Container, Pod, read_pod
from attestor.methods.workload.container import Located
from attestor.methods.workload.protocol import CantSay
from ca.errors import Unavailable
from ca.runtime import log
from ca.runtime.clock import Clock
from ca.runtime.fetch import Fetcher, Trust, parse_json
from ca.runtime.secret import Reference
from ca.runtime.settings import Duration, Settings

MOST_OFTEN = 0.5
"""Seconds between the beginnings of two questions, and for which an answer is as good as a new one."""
LIMIT = 64 * 1024 * 1024
"""Bytes of an answer; a machine of 500 pods says about ten million."""
MOST_PODS = 5000

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LONGEST_TOKEN = 65536
_log = log.get(__name__)


class KubeletSettings(Settings):
    """Where the kubelet is, by what it is known, and who asks."""

    host: str = "127.0.0.1"
    """This or `server_name` may be `env:NAME`: a pod learns from its environment on which machine it is."""
    port: Annotated[int, Field(ge=1, le=65535)] = 10250
    server_name: str | None = None
    """The name its certificate must have; left out: `host`, and no name is asked of one on loopback."""
    ca_file: Path = _ACCOUNT / "ca.crt"
    token_file: Path | None = _ACCOUNT / "token"
    certificate: Path | None = None
    """A client's certificate and `key` in PEM, instead of the token."""
    key: Path | None = None
    deadline: Duration = timedelta(seconds=5)
    """How long one question may take."""

    def resolved(self) -> KubeletSettings:
        """The same with the values of variables. Raises Malformed when one is not set."""
        name = None if self.server_name is None else _said(self.server_name)
        return self.model_copy(update={"host": _said(self.host), "server_name": name})


@dataclass(frozen=True, slots=True)
class Running:
    """A pod as the kubelet runs it; `open_to_host` when it may look at the processes of others, or at anything."""

    pod: Pod
    open_to_host: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One answer. None stands where two pods claim the same."""

    version: int
    at: float
    by_uid: Mapping[str, Running | None]
    by_container: Mapping[str, Running | None]

    def find(self, located: Located) -> tuple[Running, Container] | None:
        """The pod and the container of a process, or None while this answer doesn't know them. Raises CantSay."""
        if located.pod is not None and located.pod in self.by_uid and self.by_uid[located.pod] is None:
            raise CantSay("the kubelet names two pods of the same uid")
        if located.container not in self.by_container:
            return None
        running = self.by_container[located.container]
        if running is None:
            raise CantSay("the kubelet says that two pods have this container")
        if located.pod is not None and running.pod.uid != located.pod:
            raise CantSay("the kubelet says that this container is another pod's")
        return running, next(one for one in running.pod.containers if _id(one) == located.container)


NOTHING = Snapshot(version=0, at=float("-inf"), by_uid={}, by_container={})


class Kubelet:
    """Asks it. Enter `fetcher` before and leave it after."""

    def __init__(self, settings: KubeletSettings, fetcher: Fetcher, clock: Clock) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._url = f"https://{host}:{settings.port}/pods"
        self._token_file = None if settings.certificate else settings.token_file
        self._fetcher, self._clock = fetcher, clock
        self._turn = asyncio.Lock()
        self._began = float("-inf")
        self._failures = 0
        self._failure: Unavailable | None = None
        self.known = NOTHING

    async def recent(self) -> Snapshot:
        """An answer of the last half second, or a new one. Raises Unavailable."""
        known = self.known
        return known if self._clock.boot() - known.at < MOST_OFTEN else await self.newer(known.version)

    async def newer(self, than: int) -> Snapshot:
        """An answer with a higher number than `than`. Raises Unavailable."""
        failures = self._failures
        async with self._turn:
            if self.known.version > than:
                return self.known
            if self._failures > failures and self._failure is not None:
                raise Unavailable(str(self._failure))
            await self._clock.sleep(self._began + MOST_OFTEN - self._clock.boot())
            self._began = self._clock.boot()
            try:
                self.known = await self._ask(self.known.version + 1, self._began)
            except Unavailable as problem:
                self._failures, self._failure = self._failures + 1, problem
                raise
            return self.known

    async def _ask(self, version: int, at: float) -> Snapshot:
        answer = await self._fetcher.get(self._url, self._headers())
        if answer.status in {401, 403}:
            raise Unavailable("the kubelet does not let the node agent list its pods")
        if answer.status != 200:
            raise Unavailable(f"the kubelet answers with the status {answer.status}")
        return await asyncio.to_thread(_read, answer.body, version, at)

    def _headers(self) -> Mapping[str, str]:
        """The token is read each time: it is replaced while we run."""
        if self._token_file is None:
            return {}
        try:
            token = self._token_file.read_bytes()[:_LONGEST_TOKEN].decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"the token for the kubelet in `{self._token_file}` can't be read") from error
        if not token or not token.isprintable() or " " in token:
            raise Unavailable(f"the token for the kubelet in `{self._token_file}` is none")
        return {"Authorization": f"Bearer {token}"}


def fetcher(settings: KubeletSettings) -> Fetcher:
    """What is to be entered for a Kubelet of these settings: no redirects, one connection, bounded answers."""
    trust = Trust(
        ca_file=settings.ca_file,
        server_name=settings.server_name,
        check_name=settings.server_name is not None or not _on_loopback(settings.host),
        certificate=settings.certificate,
        key=settings.key,
    )
    return Fetcher(trust, deadline=settings.deadline.total_seconds(), limit=LIMIT, connections=1)


def _read(body: bytes, version: int, at: float) -> Snapshot:
    """Raises Unavailable when it is no list of pods."""
    found = parse_json(body)
    if not isinstance(found, dict) or found.get("kind") != "PodList":
        raise Unavailable("the kubelet answers with something that is no list of pods")
    items = [] if found.get("items") is None else found["items"]
    if not isinstance(items, list) or len(items) > MOST_PODS:
        raise Unavailable(f"the kubelet answers with something that is no list of at most {MOST_PODS} pods")
    running = [one for one in map(_running, items) if one is not None]
    return Snapshot(
        version=version,
        at=at,
        by_uid=_once((one.pod.uid, one) for one in running),
        by_container=_once((_id(each), one) for one in running for each in one.pod.containers if each.id),
    )


def _running(found: Any) -> Running | None:
    try:
        pod, spec = read_pod(found), found["spec"]
        containers = [
            one for kind in ("containers", "initContainers", "ephemeralContainers") for one in spec.get(kind) or ()
        ]
        privileged = [(one.get("securityContext") or {}).get("privileged") for one in containers]
    except (Unavailable, KeyError, TypeError, AttributeError) as error:
        _log.warning("the kubelet names a pod that can't be read", error=error)
        return None
    return Running(pod, open_to_host=bool(spec.get("hostPID")) or any(privileged))


def _once(pairs: Iterable[tuple[str, Running]]) -> dict[str, Running | None]:
    found: dict[str, Running | None] = {}
    for key, one in pairs:
        found[key] = None if key in found else one
    return found


def _id(container: Container) -> str:
    """Without the runtime's scheme: `containerd://<id>`."""
    return container.id.rpartition("://")[2]


def _said(text: str) -> str:
    return Reference.parse(text).read().reveal() if text.startswith("env:") else text


def _on_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
