"""Generated code is what the generator makes of its sources."""

from __future__ import annotations

import subprocess
import sys

from house.tree import ROOT


def test_the_messages_are_fresh() -> None:
    """`python tests/house/generate_proto.py --write` brings them up to date."""
    found = subprocess.run(
        [sys.executable, "tests/house/generate_proto.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_message_has_its_source() -> None:
    """Nothing generated stands there alone."""
    folder = ROOT / "attestor" / "_proto"
    made = {path.name.removesuffix("_pb2.py") for path in folder.glob("*_pb2.py")}
    assert made == {path.stem for path in folder.glob("*.proto")}
    assert made
