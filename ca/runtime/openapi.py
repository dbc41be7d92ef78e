"""OpenAPI 3.1 from the routes and models a process answers by, so it can't tell another story than the code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ca.runtime.problem import CONTENT_TYPE
from ca.runtime.web import Route

_VARIABLE = re.compile(r"\{([a-z_]+)(?::[^{}]*)?\}")
_REFERENCE = "#/components/schemas/{model}"
_PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "description": "What went wrong, by RFC 9457; further members tell facts about it.",
    "required": ["type", "title", "status", "detail", "code", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string", "description": "`urn:sojourn:problem:` and the code"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "one sentence"},
        "code": {"type": "string", "description": "stable, for machines"},
        "retryable": {"type": "boolean", "description": "whether the same request may succeed later"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "expected"],
                "properties": {"path": {"type": "string"}, "expected": {"type": "string"}},
            },
        },
    },
}


def document(title: str, version: str, routes: Sequence[Route]) -> dict[str, Any]:
    """The description of an API that answers `routes`."""
    schemas, references = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _VARIABLE.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "responses": {
                "Problem": {
                    "description": "A failure",
                    "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
        },
    }


Key = tuple[type[BaseModel], str]


def _schemas(routes: Sequence[Route]) -> tuple[dict[str, Any], dict[Key, dict[str, Any]]]:
    wanted = dict.fromkeys(key for route in routes for key in _keys(route))
    references, found = models_json_schema(list(wanted), ref_template=_REFERENCE)  # type: ignore[arg-type]
    return found.get("$defs", {}), references  # type: ignore[return-value]


def _keys(route: Route) -> Iterator[Key]:
    if route.body is not None:
        yield route.body, "validation"
    if route.answer is not None:
        yield route.answer, "serialization"
    if route.query is not None:
        yield route.query, "validation"


def _operation(route: Route, schemas: Mapping[str, Any], references: Mapping[Key, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "responses": {**_success(route, references), "default": {"$ref": "#/components/responses/Problem"}},
    }
    if parameters := [*_path_parameters(route), *_query_parameters(route, schemas, references)]:
        operation["parameters"] = parameters
    if route.body is not None:
        schema = references[route.body, "validation"]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _success(route: Route, references: Mapping[Key, dict[str, Any]]) -> dict[str, Any]:
    if route.stream:
        events = {"text/event-stream": {"schema": {"type": "string"}}}
        return {str(route.status): {"description": "Server-sent events", "content": events}}
    if route.answer is None:
        return {"204": {"description": HTTPStatus.NO_CONTENT.phrase}}
    content = {"application/json": {"schema": references[route.answer, "serialization"]}}
    return {str(route.status): {"description": HTTPStatus(route.status).phrase, "content": content}}


def _operation_id(route: Route) -> str:
    words = re.findall(r"[a-z0-9]+", _VARIABLE.sub(r"by-\1", route.path).lower())
    return "-".join([route.method.lower(), *words])


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in _VARIABLE.findall(route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameters(
    route: Route, schemas: Mapping[str, Any], references: Mapping[Key, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    if route.query is None:
        return
    described = schemas[references[route.query, "validation"]["$ref"].rpartition("/")[2]]
    required = set(described.get("required", ()))
    for name, schema in described.get("properties", {}).items():
        yield {"name": name, "in": "query", "required": name in required, "schema": schema}
