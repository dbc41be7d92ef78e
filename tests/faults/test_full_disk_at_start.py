"""A broker that was killed, and starts again on a disk where nothing can be written: what must end ends outside."""

from __future__ import annotations

import signal

from faults.nursery import why
from faults.yard import Yard


async def test_what_ended_is_ended_outside_without_a_word_in_the_store(yard: Yard) -> None:
    """Its task had ended and nothing more was done; no role of it may log in, though no row could be changed."""
    case = await yard.case("process_gone", "end_task.commit.after=kill@2")
    assert yard.nursery.run(case) == -signal.SIGKILL, why(case)
    doors = "SELECT count(*) FROM pg_roles WHERE starts_with(rolname::text, 'sj_') AND rolcanlogin"
    connection = await yard.server.connect()
    assert await connection.fetchval(doors) > 0
    for _ in range(2):  # the first spends what was kept aside for endings, the second finds nothing left
        assert yard.nursery.run(yard.next_life(case, "restart", starved=True)) == 0, why(case)
    assert await connection.fetchval(doors) == 0
    await connection.close()
    await yard.recovers(case)
