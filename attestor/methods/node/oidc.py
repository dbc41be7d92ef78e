"""A CI job that runs a node agent of its own, proven by the job's OpenID Connect token.

One message: the issuer's name and the token, made for the issuer's `node_audience`. The node is called after the
issuer and a hash of the subject, so a job that runs again is the same node; a token proves it to one key only, so
whoever copies a token out of a log comes too late.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from attestor.conversation import Conversation
from attestor.errors import BadConversation, NotProven
from attestor.methods.node.protocol import Attested, Occasion, parse_node_name
from attestor.methods.platform.oidc import Platform
from attestor.methods.platform.protocol import short, token_id
from attestor.selector import Selector
from ca.errors import Malformed
from ca.runtime.settings import Duration, Settings

METHOD = "oidc"


class VerifierSettings(Settings):
    """What the server wants to know."""

    issuers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of those whose jobs may be nodes."""
    longest: Duration = timedelta(hours=6)
    """After which a job must prove itself anew, by a newer token: nobody tells us when one is over."""


class ProverSettings(Settings):
    """What the node agent shows."""

    method: Literal["oidc"]
    issuer: str
    token_file: Path


class Prover:
    """Sends the token as it is now; its caller has checked the server before."""

    def __init__(self, settings: ProverSettings) -> None:
        self._settings = settings

    async def prove(self, conversation: Conversation) -> None:
        """One message. Raises Malformed when there is no token."""
        path = self._settings.token_file
        try:
            token = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Malformed(f"the token in `{path}` can't be read") from error
        await conversation.send(json.dumps({"issuer": self._settings.issuer, "token": token}).encode())


class Verifier:
    """Knows the issuers whose jobs may come."""

    def __init__(self, settings: VerifierSettings, issuers: Mapping[str, Platform], occasion: Occasion) -> None:
        self._allowed, self._issuers, self._now = settings.issuers, issuers, occasion.now

    async def verify(self, conversation: Conversation) -> Attested:
        """One message."""
        name, token = _read(await conversation.receive())
        platform = self._issuers.get(name) if name in self._allowed else None
        if platform is None:
            raise NotProven(f"`{short(name)}` is not an issuer whose jobs may be nodes here")
        claims = await platform.read(token, platform.settings.node_audience, self._now)
        node = parse_node_name(f"{name}-{hashlib.sha256(claims['sub'].encode()).hexdigest()[:40]}")
        about = {Selector("node", f"name:{node}"), Selector("node", f"method:{METHOD}")}
        return Attested(node=node, selectors=frozenset(about | platform.selectors(claims)), token_id=token_id(token))


def _read(message: bytes) -> tuple[str, str]:
    try:
        said = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise BadConversation("the proof must be JSON with `issuer` and `token`") from error
    if not isinstance(said, dict) or said.keys() != {"issuer", "token"}:
        raise BadConversation("the proof must hold `issuer` and `token`, and nothing else")
    if not isinstance(said["issuer"], str) or not isinstance(said["token"], str):
        raise BadConversation("the proof's `issuer` and `token` must be texts")
    return said["issuer"], said["token"]
