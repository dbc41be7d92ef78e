"""The reference settings can't rot: each is loaded by the process it is for, and mentions every key there is."""

from __future__ import annotations

import importlib
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from attestor.rules.read import Entry, read_rules
from attestor.server.settings import ServerSettings
from ca.runtime.settings import load
from house.tree import ROOT

CONFIG = ROOT / "config"

MODELS = {
    "attestor-server.yaml": "attestor.server.settings:ServerSettings",
    "node-agent.yaml": "attestor.node_agent.settings:NodeAgentSettings",
    "broker.yaml": "broker.settings:BrokerSettings",
}


def model(name: str) -> type[BaseModel]:
    """The settings model of one file."""
    module, _, attribute = MODELS[name].partition(":")
    found: type[BaseModel] = getattr(importlib.import_module(module), attribute)  # noqa: TID251 - the table above
    return found


def keys(kind: Any, seen: frozenset[Any] = frozenset()) -> Iterator[str]:
    """Every key a model knows, those of models inside it too."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if kind not in seen:
            for name, field in kind.model_fields.items():
                yield field.alias or name
                yield from keys(field.annotation, seen | {kind})
        return
    for inner in typing.get_args(kind):
        yield from keys(inner, seen)


@pytest.mark.parametrize("name", MODELS)
def test_a_reference_is_loaded_by_its_process(name: str) -> None:
    """As it stands there."""
    assert load(CONFIG / name, model(name))


@pytest.mark.parametrize("name", MODELS)
def test_a_reference_mentions_every_key(name: str) -> None:
    """Set, or in a comment with its default."""
    text = (CONFIG / name).read_text()
    assert [key for key in dict.fromkeys(keys(model(name))) if f"{key}:" not in text] == []


def test_there_is_one_reference_per_process_and_the_rules() -> None:
    """A new settings file gets its model here."""
    assert {path.name for path in CONFIG.glob("*.yaml")} == {*MODELS, "rules.yaml"}


def test_the_example_rules_are_good_ones() -> None:
    """Read with the terms of the reference server, which refuse what is only suspicious; every key is shown."""
    text = (CONFIG / "rules.yaml").read_text()
    terms = load(CONFIG / "attestor-server.yaml", ServerSettings).terms()
    assert terms.strict
    assert read_rules([("rules.yaml", text)], terms).warnings == ()
    assert [key for key in Entry.model_fields if f"{key}:" not in text] == []
