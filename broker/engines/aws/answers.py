"""What STS answers, read strictly: XML of one namespace, without declarations of its own, small, and whole.

A document type could name entities that grow without end or lead elsewhere, so none is read. Nothing an answer says is
repeated in an error but the code of a refusal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn
from xml.parsers import expat

from broker.errors import OutcomeUnknown
from ca.errors import Denied, Problem, Unavailable
from ca.runtime.fetch import Fetched
from ca.runtime.secret import Secret

NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
LIMIT = 64 * 1024
"""Bytes of an answer."""

_DEEPEST, _MOST = 12, 200
_OK, _TOO_MANY, _SERVER = 200, 429, 500
_CODE = re.compile(r"[A-Za-z]{1,60}(\.[A-Za-z]{1,60})?")
_KEY_ID = re.compile(r"[A-Z0-9_]{16,128}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_ARN = re.compile(r"arn:aws[a-z-]*:(?:sts|iam)::[0-9]{12}:[\x21-\x7e]{1,1200}")
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?(?:Z|\+00:00)?")
_LATER = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded", "IDPCommunicationError"})


class SessionRefused(Denied):
    """AWS does not give us such a session."""

    code = "session-refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The keys of one session, and whose they are."""

    access_key: str
    secret_key: Secret = field(repr=False)
    token: Secret = field(repr=False)
    ends_at: datetime
    arn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whom a request was signed as."""

    account: str
    arn: str


def session(fetched: Fetched, action: str) -> Session:
    """The session of an answer to `action`. Raises SessionRefused, OutcomeUnknown, Unavailable."""
    found, result = _result(fetched, action)
    keys = f"{result}/Credentials"
    return Session(
        access_key=_text(found, f"{keys}/AccessKeyId", _KEY_ID),
        secret_key=Secret(_text(found, f"{keys}/SecretAccessKey", _TOKEN)),
        token=Secret(_text(found, f"{keys}/SessionToken", _TOKEN)),
        ends_at=_moment(_text(found, f"{keys}/Expiration", _MOMENT)),
        arn=_text(found, f"{result}/AssumedRoleUser/Arn", _ARN),
    )


def caller(fetched: Fetched) -> Caller:
    """Whom AWS takes us for. Raises as `session` does."""
    found, result = _result(fetched, "GetCallerIdentity")
    return Caller(account=_text(found, f"{result}/Account", _ACCOUNT), arn=_text(found, f"{result}/Arn", _ARN))


def refusal(fetched: Fetched) -> Problem:
    """What an answer means that is no session."""
    if fetched.status >= _SERVER:
        return OutcomeUnknown(f"STS failed ({fetched.status})")
    try:
        found = read(fetched.body, strict=False)  # a code gives nobody anything, and who refuses may be another service
        code = next((text for where, text in found.items() if where.endswith("/Error/Code")), "")
    except Unavailable:
        code = ""
    if fetched.status == _TOO_MANY or code in _LATER:
        return Unavailable("STS was asked too often, or could not ask for our keys")
    shown = f": `{code}`" if _CODE.fullmatch(code) else ""
    return SessionRefused(f"AWS refuses the broker or the role it asks for ({fetched.status}){shown}")


def read(body: bytes, *, strict: bool = True) -> dict[str, str]:
    """The texts of a document by the path of their element; `strict`: only of STS's own form. Raises Unavailable."""
    reader = _Reader(strict)
    parser = expat.ParserCreate("utf-8", "\n")
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ProcessingInstructionHandler = reader.foreign
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.data
    if len(body) > LIMIT:
        raise Unavailable("STS answered more than it has to say")
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError) as error:
        raise Unavailable("STS answered something that is not XML") from error
    return reader.found


@dataclass(slots=True)
class _Reader:
    strict: bool
    path: list[str] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)

    def foreign(self, *_: object) -> NoReturn:
        raise Unavailable("STS answered XML with declarations or instructions, which is not read")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition("\n")
        if self.strict and (namespace != NAMESPACE or attributes):
            raise Unavailable("STS answered XML of another form than its own")
        self.path.append(local)
        if len(self.path) > _DEEPEST or len(self.found) >= _MOST:
            raise Unavailable("STS answered more than it has to say")
        where = "/".join(self.path)
        if where in self.found:
            raise Unavailable("STS said the same thing twice")
        self.found[where] = ""

    def end(self, _: str) -> None:
        where = "/".join(self.path)
        self.found[where] = self.found[where].strip()
        self.path.pop()

    def data(self, text: str) -> None:
        self.found["/".join(self.path)] += text


def _result(fetched: Fetched, action: str) -> tuple[dict[str, str], str]:
    if fetched.status != _OK:
        raise refusal(fetched)
    found = read(fetched.body)
    result = f"{action}Response/{action}Result"
    if result not in found:
        raise Unavailable(f"STS answered something other than a result of `{action}`")
    return found, result


def _text(found: dict[str, str], where: str, pattern: re.Pattern[str]) -> str:
    text = found.get(where, "")
    if not pattern.fullmatch(text):
        raise Unavailable(f"STS did not say `{where.rpartition('/')[2]}`, or not as it is written")
    return text


def _moment(text: str) -> datetime:
    found = _MOMENT.fullmatch(text)
    try:
        return datetime.fromisoformat(found[1] if found else "").replace(tzinfo=UTC)
    except ValueError as error:
        raise Unavailable("STS did not say when the session ends") from error
