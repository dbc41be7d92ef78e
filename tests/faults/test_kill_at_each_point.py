"""kill -9 of the broker before and after every engine call and every commit: nothing is left, nothing is forged.

For each point that `house/failpoints.py` finds in the lifecycle, and each story that reaches it: the broker kills
itself there (its marker names the point, and a signal ended it), a new broker starts on the same store and the same
PostgreSQL, makes its first ticks and one sweep, and the oracle looks; again a minute later; again when every task has
ended. A point that no story reaches is a failure.
"""

from __future__ import annotations

import os
import signal

import pytest

from faults.nursery import fired, why
from faults.stories import TO_BE_KILLED
from faults.yard import Yard
from house.failpoints import all_points

MARKED = ",".join(f"{point}=mark" for point in all_points())
EACH = len(TO_BE_KILLED) if "FAULTS_ALL" in os.environ else 1
"""In how many of the stories that come by a point the broker is killed there."""

_reached: dict[str, list[str]] = {}


async def told(yard: Yard, story: str) -> list[str]:
    """The points a story comes by when nobody is killed; it must end well, and leave a clean world."""
    if story not in _reached:
        case = await yard.case(story, MARKED)
        assert yard.nursery.run(case) == 0, why(case)
        _reached[story] = fired(case)
        await yard.recovers(case)
    return _reached[story]


@pytest.mark.parametrize("story", TO_BE_KILLED)
async def test_unharmed(yard: Yard, story: str) -> None:
    """Told to its end, the story leaves nothing but what it should."""
    assert await told(yard, story)


@pytest.mark.parametrize("point", all_points())
async def test_killed_at(yard: Yard, point: str) -> None:
    """In stories that come by; which of them differs from point to point."""
    stories = [story for story in TO_BE_KILLED if point in await told(yard, story)]
    assert stories, "no story reaches this point"
    first = all_points().index(point) // 2
    for story in dict.fromkeys(stories[(first + step) % len(stories)] for step in range(EACH)):
        case = await yard.case(story, f"{point}=kill")
        assert yard.nursery.run(case) == -signal.SIGKILL, (story, why(case))
        assert fired(case) == [point], story
        await yard.recovers(case)
