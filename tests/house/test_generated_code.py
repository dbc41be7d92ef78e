"""What was generated is what would be generated."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_the_committed_proto_code_is_fresh() -> None:
    """attestor/_proto/*_pb2.py and .pyi are what the compiler makes of the .proto files beside them."""
    place = Path(__file__).with_name("generate_proto.py")
    spec = importlib.util.spec_from_file_location("generate_proto", place)
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.stale() == []
