"""An engine's module is there without its driver; opening a target says what is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest

_OPENED = """
import asyncio, sys
sys.modules["{driver}"] = None
from broker.engines import load
from broker.engines.protocol import Lent
from ca.errors import Malformed
from ca.runtime.clock import SystemClock
module = load("{kind}")
said = module.Settings.model_validate({{"kind": "{kind}", "host": "127.0.0.1", "user": "u", "password": "env:P"}})
async def main():
    async with module.open_engine(said, Lent(clock=SystemClock())):
        pass
try:
    asyncio.run(main())
except Malformed as problem:
    print(problem)
"""


@pytest.mark.parametrize(("kind", "driver"), [("mysql", "asyncmy"), ("redis", "redis")])
def test_a_missing_driver_is_named(kind: str, driver: str) -> None:
    """In a process of its own, where it can't be imported."""
    code = _OPENED.format(kind=kind, driver=driver)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith(f"the engine `{kind}` needs `{driver}")
    assert done.stdout.endswith(f"install `sojourn[{kind}]`\n")
