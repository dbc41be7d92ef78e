"""OpenAPI 3.1 from the routes."""

from __future__ import annotations

import json
from typing import Any

from ca.runtime.openapi import document
from fakes.web_service import WebService


def references(node: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(references(value) for value in node))
    return set()


async def test_the_document_says_what_the_routes_say() -> None:
    """Paths, parameters, bodies, answers, and the one failure."""
    found = document("Test", "1.2", WebService().routes)
    assert found["openapi"] == "3.1.0"
    assert found["info"] == {"title": "Test", "version": "1.2"}
    assert set(found["paths"]["/v1/items"]) == {"post", "get"}
    post = found["paths"]["/v1/items"]["post"]
    assert post["operationId"] == "post-v1-items"
    assert post["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Item"}
    assert set(post["responses"]) == {"201", "default"}
    listed = found["paths"]["/v1/items"]["get"]["parameters"]
    assert [(one["name"], one["in"], one["required"]) for one in listed] == [
        ("limit", "query", False),
        ("after", "query", False),
    ]
    shown = found["paths"]["/v1/items/{id}"]["get"]
    assert shown["parameters"] == [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    assert set(found["paths"]["/v1/items/{id}"]["delete"]["responses"]) == {"204", "default"}


async def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() -> None:
    """So generators of clients can use it; and it is JSON."""
    found = json.loads(json.dumps(document("Test", "1", WebService().routes)))
    for reference in references(found):
        node = found
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    names = [operation["operationId"] for path in found["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)
