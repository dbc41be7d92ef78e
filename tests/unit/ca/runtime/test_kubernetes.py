"""The client of the Kubernetes API against a server that speaks its protocol over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ca.errors import Denied, Malformed, NotFound, Problem, Unauthenticated, Unavailable
from ca.runtime.kubernetes import Changed, Kubernetes, KubernetesSettings, Listed, segment
from fakes.kubernetes import FakeCluster, cluster
from fakes.web_pki import WebAuthority

POD = "/api/v1/namespaces/shop/pods/cart-0"
PODS = "/api/v1/pods"


async def test_one_object_and_one_that_is_not_there(tmp_path: Path) -> None:
    """With the token and the CA as the files hold them at that moment."""
    async with cluster(tmp_path) as api, Kubernetes(api.settings) as client:
        pod = api.add_pod("shop", "cart-0", node="n")
        assert (await client.get(POD))["metadata"]["uid"] == pod["metadata"]["uid"]
        with pytest.raises(NotFound):
            await client.get(f"{POD}1")
        api.accepted_token = "renewed"
        with pytest.raises(Unauthenticated):
            await client.get(POD)
        api.token_file.write_text("renewed\n")
        assert await client.get(POD)
        api.ca_file.write_bytes(WebAuthority().pem)
        with pytest.raises(Unavailable, match="not trusted"):
            await client.get(POD)


@pytest.mark.parametrize(
    ("status", "problem"),
    [(403, Denied), (422, Malformed), (429, Unavailable), (500, Unavailable), (302, Unavailable), (404, Unavailable)],
)
async def test_a_refusal_says_what_the_caller_can_do(tmp_path: Path, status: int, problem: type[Problem]) -> None:
    """Whatever the API answers."""
    async with cluster(tmp_path) as api, Kubernetes(api.settings) as client:
        api.status = status
        with pytest.raises(problem, match=str(status)):
            await client.get(POD)


async def test_without_a_token_nothing_is_asked(tmp_path: Path) -> None:
    """Absent, empty, or of two lines, which would be two headers."""
    async with cluster(tmp_path) as api, Kubernetes(api.settings) as client:
        for content in ("", "a\nb", "\xe4"):
            api.token_file.write_text(content)
            with pytest.raises(Unavailable, match="token"):
                await client.get(POD)
        api.token_file.unlink()
        with pytest.raises(Unavailable, match="can't be read"):
            await client.get(POD)
        assert api.requests == []


async def test_a_hanging_server_is_left(tmp_path: Path) -> None:
    """At the deadline."""
    async with cluster(tmp_path) as api:
        settings = loads_deadline(api, "200ms")
        async with Kubernetes(settings) as client:
            api.hanging.clear()
            with pytest.raises(Unavailable, match="did not answer"):
                await client.get(POD)


def loads_deadline(api: FakeCluster, deadline: str) -> KubernetesSettings:
    """The same with another deadline."""
    from ca.runtime.settings import loads

    plain = api.settings
    text = (
        f"{{server: '{plain.server}', token_file: {plain.token_file}, ca_file: {plain.ca_file}, deadline: {deadline}}}"
    )
    return loads(text, "kubernetes", KubernetesSettings)


async def following(client: Kubernetes) -> AsyncIterator[str]:
    """What a watch says, in words."""
    async for step in client.watch(PODS):
        if isinstance(step, Listed):
            yield "listed " + ",".join(sorted(one["metadata"]["name"] for one in step.items))
        else:
            assert isinstance(step, Changed)
            yield f"{step.kind} {step.object['metadata']['name']}"


async def test_a_watch_goes_on_where_it_was(tmp_path: Path) -> None:
    """Over the end of a request; and begins anew when what it knew is too old."""
    async with asyncio.timeout(60), cluster(tmp_path) as api, Kubernetes(api.settings) as client:
        first = api.add_pod("shop", "a", node="n")
        steps = following(client)
        assert await anext(steps) == "listed a"
        api.add_pod("shop", "b", node="n")
        assert await anext(steps) == "added b"
        await api.cut_watches()
        api.remove(first)
        assert await anext(steps) == "deleted a"
        api.add_pod("shop", "c", node="n")
        api.compact()
        await api.cut_watches()
        assert await anext(steps) == "listed b,c"


async def test_a_list_comes_in_pages(tmp_path: Path) -> None:
    """And is told whole."""
    async with cluster(tmp_path) as api, Kubernetes(api.settings) as client:
        for number in range(600):
            api.add_pod("shop", f"p{number}", node="n")
        first = await anext(aiter(client.watch(PODS)))
        assert isinstance(first, Listed)
        assert len(first.items) == 600


async def test_a_watch_that_is_always_ended_is_not_repeated_at_once(tmp_path: Path) -> None:
    """It would be asked for without end."""
    async with cluster(tmp_path) as api, Kubernetes(api.settings) as client:
        steps = following(client)
        api.watch_status = 410
        assert [await anext(steps), await anext(steps)] == ["listed ", "listed "]
        with pytest.raises(Unavailable, match="said nothing"):
            await anext(steps)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a%2fb", "a?b", "-a", "a" * 300, 5, None])
def test_a_name_leads_nowhere_else(name: object) -> None:
    """It may have come from a token or a node agent."""
    with pytest.raises(Malformed):
        segment(name)


@pytest.mark.parametrize("server", ["http://127.0.0.1", "https://h/path", "https://u@h", "h"])
def test_a_server_of_another_form_is_refused(server: str) -> None:
    """When it is opened."""
    with pytest.raises(Malformed):
        Kubernetes(KubernetesSettings(server=server))
