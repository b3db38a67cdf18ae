"""Reasons: why an operator acts, in words that help an auditor."""

from __future__ import annotations

import unicodedata
from typing import Final, Literal

from taskyard.errors import InvalidReason
from taskyard.wire.control_characters import STEERING
from taskyard.wire.redaction import mask_tokens

__all__ = ["MINIMUM_LENGTH", "UNSPECIFIED", "Mode", "check_reason"]

Mode = Literal["compatible", "strict"]

MINIMUM_LENGTH: Final = 10
UNSPECIFIED: Final = "unspecified (compatibility)"
_MAXIMUM_LENGTH: Final = 2000
_FEWEST_LETTERS: Final = 4  # Texts such as "aaaaaaaaaaaa" and "1234567890" give no reason.
_THROW_AWAY: Final = frozenset(
    {
        "as discussed",
        "because i can",
        "does not work",
        "fix it",
        "fix it now",
        "fixing it",
        "just a test",
        "just testing",
        "no reason",
        "please retry",
        "replay it",
        "retry please",
        "test test test",
        "testing",
        "testing it",
        "testing this",
        "this is a test",
        "try again",
        "trying again",
        UNSPECIFIED,
    }
)
_EXAMPLE: Final = "Infrastructure recovered after 2-hour outage, ticket 12345"


def check_reason(reason: str | None, mode: Mode = "strict") -> str:
    """Return the reason for the audit log, on one line, tokens and credentials masked.

    Raises `InvalidReason` if it gives no reason or hides text. Expected are 10 to 2,000 characters
    of text; the error's message has a good example. None comes from older calls that cannot give a
    reason: `compatible` then writes `unspecified (compatibility)`, `strict` refuses.
    """
    if reason is None:
        if mode == "compatible":
            return UNSPECIFIED
        raise InvalidReason(f'a reason is required, for example: "{_EXAMPLE}"')
    _refuse_hidden(reason.replace("\r\n", "\n"))
    said = " ".join(reason.split())
    if _says_nothing(said):
        raise InvalidReason(
            f"the reason {said[:60]!r} is too short or too general. Say in at least "
            f'{MINIMUM_LENGTH} characters what happened and why you act, for example: "{_EXAMPLE}"'
        )
    if len(said) > _MAXIMUM_LENGTH:
        raise InvalidReason(f"a reason has at most {_MAXIMUM_LENGTH} characters, got {len(said)}")
    # It goes to logs, to every client that a switch refuses, and to rows that nothing removes.
    return mask_tokens(said)


def _refuse_hidden(reason: str) -> None:
    """Refuse hidden characters.

    Terminals and spreadsheets show the log, and must show all of it.
    """
    found = STEERING.search(reason)
    if found is None:
        return
    name = unicodedata.name(found[0], "a control character")
    raise InvalidReason(
        f"a reason is plain text, but character {found.start() + 1} is U+{ord(found[0]):04X} "
        f"({name}), which hides or reorders text. Remove it"
    )


def _says_nothing(said: str) -> bool:
    letters = {char for char in said.casefold() if char.isalpha()}
    plain = said.casefold().strip(" .!?,;:-")
    return len(said) < MINIMUM_LENGTH or len(letters) < _FEWEST_LETTERS or plain in _THROW_AWAY
