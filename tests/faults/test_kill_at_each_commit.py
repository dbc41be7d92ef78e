"""kill -9 before and after every COMMIT of the store, whoever wrote: use cases, loops, migrations, the very first ones.

The points of the lifecycle are named places; here they are counted. A story is told again and again, its broker killed
at the next commit each time, until one comes to its end.
"""

from __future__ import annotations

import os
import signal

import pytest

from faults.nursery import why
from faults.yard import Yard

STEP = 1 if "FAULTS_ALL" in os.environ else 9
"""Every how many commits it is killed; before and after take turns, so neither is left out."""


@pytest.mark.parametrize("story", ["whole_life", "process_gone"])
async def test_killed_at_every_commit(yard: Yard, story: str) -> None:
    """Until it is told to its end."""
    number, kills = 1, 0
    while True:
        for side in ("before", "after") if STEP == 1 else ("before" if kills % 2 else "after",):
            case = await yard.case(story, f"store.commit.{side}=kill@{number}")
            status = yard.nursery.run(case)
            if status == 0:
                assert number > 20
                await yard.recovers(case)
                return
            assert status == -signal.SIGKILL, (number, why(case))
            await yard.recovers(case)
            kills += 1
        number += STEP
