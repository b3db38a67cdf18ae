"""Report a failure as one red line on stderr and an exit code; a stack trace only on request."""

from __future__ import annotations

import re
import sys
import traceback
from dataclasses import dataclass
from typing import Final

import typer

from taskyard.errors import (
    InvalidPayload,
    InvalidReason,
    InvalidRights,
    InvalidSettings,
    InvalidSwitch,
    KillSwitchOn,
    NotFound,
    NotPermitted,
    PublishFailed,
    Refused,
    ServerUnreachable,
    TaskyardError,
    UnknownJobType,
    UnknownPriority,
    UnknownQueue,
)
from taskyard.ops.cli.console import print_error
from taskyard.ops.cli.standard_streams import FULL, silence
from taskyard.ops.cli.visible_text import clean, json_text
from taskyard.wire.redaction import mask_tokens

__all__ = ["Switches", "report_failure", "with_next_step"]

USAGE: Final = 2
UNREACHABLE: Final = 3
FAULT: Final = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED: Final = 130  # 128 + SIGINT
_SERVERS: Final = frozenset({"redis", "kombu", "amqp", "sqlalchemy", "psycopg2"})
_OPS_EXTRA: Final = frozenset(
    {"alembic", "cryptography", "psycopg2", "rich", "sqlalchemy", "typer"}
)
_BUILTIN_EXTRA: Final = frozenset({"gherkin", "lxml", "mechanicalsoup", "rapidfuzz"})
_NAMED: Final = re.compile(r"taskyard [a-z]+|pip install|Run: ")
# The first match is used; {path} is the command that failed, {noun} its first two words.
_STEPS: Final[tuple[tuple[tuple[type[TaskyardError], ...], str], ...]] = (
    (
        (NotPermitted,),
        "An admin can give more rights. To see who has which rights: taskyard tokens list",
    ),
    ((KillSwitchOn,), "See: taskyard switches list"),
    ((UnknownQueue, UnknownPriority), "See: taskyard env"),
    ((UnknownJobType,), "See: taskyard types list"),
    ((InvalidSettings, ServerUnreachable, PublishFailed), "See: taskyard check"),
    ((InvalidPayload, InvalidReason, InvalidRights, InvalidSwitch), "See: {path} --help"),
    ((Refused, NotFound), "See: {noun} list"),
)


# Nouns without a `list` of their own.
_LISTED_BY: Final = {"taskyard kill": "taskyard switches"}


@dataclass(slots=True)
class Switches:
    """What else matters when a command fails: two options, and the words of the command line."""

    traceback: bool = False
    json: bool = False
    path: str = "taskyard"


def report_failure(error: BaseException, switches: Switches) -> int:
    """Report `error` and return its exit code."""
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case KeyboardInterrupt() | typer.Abort():
            return INTERRUPTED
    if switches.traceback:
        sys.stderr.write(clean(mask_tokens("".join(traceback.format_exception(error)))))
    text, code = _sentence(error, switches.path)
    text = mask_tokens(text)
    if not text:  # no command was given; the answer is the help that Typer printed
        return code
    if isinstance(error, OSError) and error.errno in FULL:
        silence()
    elif switches.json:
        _print_document(error, text, code)
    print_error(text)
    return code


def _sentence(error: BaseException, path: str) -> tuple[str, int]:
    if isinstance(error, TaskyardError):
        return with_next_step(error, path), error.exit_code
    if hasattr(error, "format_message"):  # Typer's own error: an argument that it rejects
        return _usage(error, path), USAGE
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        if package in _OPS_EXTRA | _BUILTIN_EXTRA:
            extra = "ops" if package in _OPS_EXTRA else "builtin"
            return f"{package} is not installed. Run: pip install 'taskyard[{extra}]'", USAGE
    if isinstance(error, OSError) and error.errno in FULL:
        return f"the output cannot be written: {error.strerror}. Make room, then run it again", 1
    if any(base.__module__.partition(".")[0] in _SERVERS for base in type(error).__mro__):
        return f"a server failed ({_first_line(error)}). See: taskyard check", UNREACHABLE
    text = (
        f"unexpected {type(error).__name__}: {_first_line(error)}. This is a defect of Taskyard. "
        f"To see its stack trace, run the same command with: taskyard --traceback"
    )
    return text, FAULT


def _usage(error: BaseException, path: str) -> str:
    context = getattr(error, "ctx", None)
    path = path if context is None else context.command_path
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    if not message:
        return ""
    said = (
        " ".join(message.split())
        .replace("'. Did", "': did")
        .replace("Value error, ", "")
        .replace("Input should be ", "expected ")
        .partition(", unable to parse")[0]
        .rstrip(".")
    )
    return f"{said}{'' if said.endswith('?') else '.'} See: {path} --help"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _print_document(error: BaseException, text: str, code: int) -> None:
    document = {"kind": type(error).__name__, "message": text, "exit_code": code}
    sys.stdout.write(json_text({"error": document}) + "\n")


def with_next_step(error: TaskyardError, path: str) -> str:
    """Return the error's text, ending with a command that helps; `path` is the one that failed."""
    text = str(error)
    if _NAMED.search(text):
        return text
    for kinds, step in _STEPS:
        if isinstance(error, kinds):
            noun = " ".join(path.split()[:2])
            noun = _LISTED_BY.get(noun, noun)
            return f"{_ended(text)} {step.format(path=path, noun=noun)}"
    return text


def _ended(text: str) -> str:
    """Return the text with a full stop; a list of faults gets a line of its own."""
    if "\n" in text:
        return f"{text}\n "
    return text if text.endswith((".", "?", "!")) else f"{text}."
