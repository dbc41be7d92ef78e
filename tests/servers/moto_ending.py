"""`moto_server` with two things AWS has and it lacks: a session ends, and the clock may be the tests' own.

    python -P moto_ending.py AHEAD -H 127.0.0.1 -p 5000      # its clock is as many seconds ahead as the file AHEAD says

It runs as a program and imports nothing of ours.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from moto.core import utils

_machine = utils.utcnow


def _ahead() -> datetime:
    return _machine() + timedelta(seconds=float(Path(sys.argv[1]).read_text()))


utils.utcnow = _ahead  # before anybody else has it by name

from moto.iam import access_control  # noqa: E402
from moto.server import main  # noqa: E402
from moto.sts.models import sts_backends  # noqa: E402


class Ending(access_control.AssumedRoleAccessKey):
    """The keys of a session, for as long as it lasts."""

    def __init__(self, account_id: str, partition: str, access_key_id: str, headers: dict[str, Any]) -> None:
        super().__init__(account_id, partition, access_key_id, headers)
        sessions = sts_backends[account_id][partition].assumed_roles
        (mine,) = [session for session in sessions if session.access_key_id == access_key_id]
        if mine.expiration <= _ahead():
            raise access_control.CreateAccessKeyFailure(reason="InvalidToken")


if __name__ == "__main__":
    access_control.AssumedRoleAccessKey = Ending  # type: ignore[misc]
    main(sys.argv[2:])
