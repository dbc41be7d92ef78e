"""AWS as the holder of a session's keys sees it, through botocore: it is told who it is, or is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from faults.eyes.bearer import BearerEyes
from faults.eyes.http import Https

_WHO = b"Action=GetCallerIdentity&Version=2011-06-15"
_CLEAR = re.compile(r"(?:SecretAccessKey|WebIdentityToken)=\S{0,12}")
_KEYS = 3


@dataclass
class AwsEyes(BearerEyes):
    """`role` is the ARN its sessions are of, `log` has every request line."""

    https: Https
    region: str
    role: str
    log: Path

    lasting = True

    async def opens(self, user: str, secret: str) -> bool:
        """Whether AWS takes the holder of these keys for the session called `user`."""
        keys = secret.split(" ")
        if len(keys) != _KEYS:
            return False
        asked = AWSRequest("POST", f"https://127.0.0.1:{self.https.port}/", data=_WHO)
        asked.headers["Content-Type"] = "application/x-www-form-urlencoded"
        SigV4Auth(Credentials(*keys), "sts", self.region).add_auth(asked)
        status, answer = self.https.ask("POST", "/", dict(asked.headers.items()), _WHO)
        if status not in {200, 403}:
            raise RuntimeError(f"AWS can't tell: {status}")
        return status == 200 and f":assumed-role/{self.role.rpartition('/')[2]}/{user}<".encode() in answer

    def clear(self, log: bytes) -> Iterator[str]:
        """Bodies of requests are not logged; were they, a secret would stand out."""
        yield from _CLEAR.findall(log.decode(errors="replace"))

    async def close(self) -> None:
        """Look no more."""
        self.https.close()
