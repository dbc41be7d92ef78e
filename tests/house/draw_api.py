"""Draws the table of routes in docs/api.md from `broker.api.ROUTES`; prints the API's description for machines.

python tests/house/draw_api.py               says whether the page is out of date, exit code 1 if it is
python tests/house/draw_api.py --write       brings it up to date
python tests/house/draw_api.py --openapi     prints the OpenAPI 3.1 document
"""

from __future__ import annotations

import json
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from broker.api import ROUTES
from broker.command import VERSION
from broker.model.caller import Verb
from ca.runtime.openapi import document
from ca.runtime.web import Route

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
_BLOCK = re.compile(r"(<!-- (routes|answers|verbs): drawn[^>]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)


def fields(model: type[BaseModel] | None) -> str:
    """The keys of a body or query; `?` marks those that may be left out."""
    known = model.model_fields.items() if model is not None else ()
    return ", ".join(f"`{field.alias or name}{'' if field.is_required() else '?'}`" for name, field in known)


def routes() -> Iterator[str]:
    """The table, a row for each route."""
    yield "| | what | body | query | answers |"
    yield "|---|---|---|---|---|"
    for route in ROUTES:
        cells = (
            f"`{route.method} {route.path}`",
            route.summary,
            fields(route.body),
            fields(route.query),
            answer(route),
        )
        yield f"| {' | '.join(cells)} |"


def answer(route: Route) -> str:
    """Status and the name of what is told."""
    if route.stream:
        return f"{route.status}, a stream of `{name_of(route.answer)}`"
    return f"{route.status} `{name_of(route.answer)}`" if route.answer is not None else str(route.status)


def name_of(model: type[BaseModel] | None) -> str:
    """What an answer is called; a page is called by what it holds."""
    assert model is not None
    inner = item_of(model)
    return f"{inner.__name__}[]" if inner is not None else model.__name__


def item_of(model: type[BaseModel]) -> type[BaseModel] | None:
    """What a page holds."""
    field = model.model_fields.get("items")
    found = typing.get_args(field.annotation) if field is not None else ()
    return found[0] if found and issubclass(found[0], BaseModel) else None


def answers() -> Iterator[str]:
    """The table of what is told, a row for each model."""
    yield "| answer | keys |"
    yield "|---|---|"
    models = dict.fromkeys(item_of(route.answer) or route.answer for route in ROUTES if route.answer is not None)
    for model in models:
        yield f"| `{model.__name__}` | {fields(model).replace('?', '')} |"


def verbs() -> Iterator[str]:
    """What an operator may be allowed."""
    yield ", ".join(f"`{verb}`" for verb in Verb)


def drawn(text: str) -> str:
    """The page `text` with what is drawn as it should be."""
    parts = {"routes": routes, "answers": answers, "verbs": verbs}
    return _BLOCK.sub(lambda found: f"{found[1]}{chr(10).join(parts[found[2]]())}\n{found[4]}", text)


def openapi() -> dict[str, Any]:
    """The whole surface for machines."""
    return document("Sojourn broker", VERSION, ROUTES)


if __name__ == "__main__":
    if sys.argv[1:] == ["--openapi"]:
        print(json.dumps(openapi(), indent=2))
    elif sys.argv[1:] == ["--write"]:
        PAGE.write_text(drawn(PAGE.read_text()))
    elif drawn(PAGE.read_text()) != PAGE.read_text():
        sys.exit("out of date, run `python tests/house/draw_api.py --write`: docs/api.md")
