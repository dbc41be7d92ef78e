"""docs/api.md says what the API is: its tables are drawn, and its examples are calls the API would take."""

from __future__ import annotations

import json
import re

import pytest

from broker.api import ROUTES
from ca.runtime.web import Route
from house import draw_api

TEXT = draw_api.PAGE.read_text()
EXAMPLES = re.findall(r"^(?:agent|operator) .*(?:(?:\n|\\\n) +[^a].*)*", TEXT, re.MULTILINE)


def route_of(example: str) -> Route | None:
    """The route an example calls."""
    found = re.search(r"(?:\$broker|http://broker)(/v1/[^\s\"?]+)", example)
    assert found is not None
    path = re.sub(r"\$\w+", "x", found[1])
    method = re.search(r"-X (\w+)", example)
    verb = method[1] if method else "POST" if " -d " in example else "GET"
    return next(
        (one for one in ROUTES if one.method == verb and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", one.path), path)),
        None,
    )


def test_what_is_drawn_is_fresh() -> None:
    """`python tests/house/draw_api.py --write` brings it up to date."""
    assert draw_api.drawn(TEXT) == TEXT
    assert all(f"| `{route.method} {route.path}` |" in TEXT for route in ROUTES)


def test_the_examples_were_found() -> None:
    """The test below looks at something."""
    assert len(EXAMPLES) == 13


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.partition("\n")[0])
def test_an_example_is_a_call_the_api_takes(example: str) -> None:
    """Its route exists, its query is known and its body is valid."""
    route = route_of(example)
    assert route is not None
    body = re.search(r"-d '(.*?)'", example, re.DOTALL)
    if body is not None:
        assert route.body is not None
        assert route.body.model_validate_json(body[1])
    query = re.search(r"\?(\w+)=([^\s\"]+)", example)
    if query is not None:
        assert route.query is not None
        assert query[1] in route.query.model_fields


def test_the_description_for_machines_names_every_route() -> None:
    """And every reference in it leads somewhere."""
    found = draw_api.openapi()
    assert {(method.upper(), path) for path, item in found["paths"].items() for method in item} == {
        (route.method, route.path) for route in ROUTES
    }
    for reference in set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(found))):
        assert reference in found["components"]["schemas"]
