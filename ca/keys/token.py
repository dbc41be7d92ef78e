"""A PKCS#11 token, as one process may use it: one login, one session, one thread, never closed.

Closing a session while another thread signs breaks both, and a login holds for the whole process: so whoever asks for
the same token gets the same `Token`, and every call is a piece of work for its thread. The PIN is read from where it
rests at each login and kept nowhere. A token that refuses it is never asked with it again: a few wrong PINs lock it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ca.errors import Malformed, Problem, Unavailable
from ca.keys.protocol import KeyUnusable
from ca.runtime.secret import Reference

PATIENCE = 10.0
"""Seconds a token may take for one piece of work."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """An open session, and the private keys that were found in it, by what was looked for."""

    raw: Any
    known: dict[Any, Any] = field(default_factory=dict)


Work = Callable[[Session], T]
"""What is done with a session, on the token's thread."""


class Token:
    """One token; made by `open_token`."""

    def __init__(self, module: Path, label: str, pin: Reference) -> None:
        self.label = label
        self._module, self._pin = module, pin
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"token {label}")
        self._session: Session | None = None
        self._refused: str | None = None
        self._answered = False

    async def run(self, work: Work[T]) -> T:
        """Have `work` done, once more when the session was lost meanwhile.

        Raises:
            KeyUnusable: there is no such module or token, or the PIN is not its own.
            Unavailable: the token does not do it, or not in time, or is away after it had answered.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, work)
        except TimeoutError as error:
            raise Unavailable(f"the token `{self.label}` does not answer") from error

    def _attempt(self, work: Work[T]) -> T:
        from pkcs11 import exceptions

        lost = (
            exceptions.SessionHandleInvalid,
            exceptions.SessionClosed,
            exceptions.DeviceRemoved,
            exceptions.TokenNotPresent,
            exceptions.UserNotLoggedIn,
        )
        try:
            if self._session is not None:
                try:
                    return work(self._session)
                except lost:
                    self._session = None
            self._session = self._login()
            self._answered = True
            return work(self._session)
        except Problem:
            raise
        except exceptions.PKCS11Error as error:
            raise Unavailable(f"the token `{self.label}` failed: {type(error).__name__}") from error

    def _login(self) -> Session:
        import pkcs11
        from pkcs11 import exceptions

        if self._refused is not None:
            raise KeyUnusable(self._refused)
        away = Unavailable if self._answered else KeyUnusable  # what answered once may come back
        try:
            token = pkcs11.lib(str(self._module)).get_token(token_label=self.label)
        except (exceptions.NoSuchToken, exceptions.MultipleTokensReturned) as error:
            raise away(f"there is not exactly one token `{self.label}` in `{self._module}`") from error
        except exceptions.PKCS11Error as error:
            raise away(f"can't use the PKCS#11 module `{self._module}`: {type(error).__name__}") from error
        try:
            return Session(token.open(rw=True, user_pin=self._pin.read().reveal()))
        except exceptions.UserAlreadyLoggedIn:  # only the session was lost
            return Session(token.open(rw=True))
        except (
            exceptions.PinIncorrect,
            exceptions.PinInvalid,
            exceptions.PinLenRange,
            exceptions.PinExpired,
            exceptions.PinLocked,
        ) as error:
            self._refused = f"the token `{self.label}` refuses the PIN `{self._pin}`: {type(error).__name__}"
            raise KeyUnusable(self._refused) from None  # the PIN is in the arguments of the frames below


_TOKENS: dict[tuple[str, str], Token] = {}


def open_token(module: Path, label: str, pin: Reference) -> Token:
    """The token of that label, the same for everybody in this process; the first use logs in.

    Raises:
        Malformed: this installation can't speak to tokens.
    """
    try:
        import pkcs11  # noqa: F401 -- an extra: said here, in words, and not at the first signature
    except ImportError as error:
        raise Malformed("keys on a token need `python-pkcs11`: install `sojourn[pkcs11]`") from error
    return _TOKENS.setdefault((str(module), label), Token(module, label, pin))
