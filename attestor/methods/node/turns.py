"""The messages of proofs that go to and fro: JSON with exactly the names that are expected, bytes as base64."""

from __future__ import annotations

import base64
import json

from attestor.errors import BadConversation


def read(message: bytes, *keys: str) -> list[object]:
    """The values of `keys`, in their order. Raises BadConversation."""
    try:
        said = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise BadConversation("a message of this proof must be JSON") from error
    if not isinstance(said, dict) or said.keys() != set(keys):
        raise BadConversation(f"this message must hold {' and '.join(f'`{key}`' for key in keys)}, and nothing else")
    return [said[key] for key in keys]


def bytes_of(text: object, length: int | None = None) -> bytes:
    """What stands in base64; of exactly `length` bytes, if that is given. Raises BadConversation."""
    try:
        found = base64.b64decode(text if isinstance(text, str) else "=", validate=True)
    except ValueError as error:
        raise BadConversation("a message of this proof holds what is not base64") from error
    if length is not None and len(found) != length:
        raise BadConversation(f"a value of this proof has another length than {length} bytes")
    return found


def written(**said: bytes | list[bytes] | list[int]) -> bytes:
    """A message; numbers stay numbers."""
    return json.dumps({key: _plain(value) for key, value in said.items()}).encode()


def _plain(value: bytes | list[bytes] | list[int]) -> object:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [base64.b64encode(one).decode() if isinstance(one, bytes) else one for one in value]
