"""docs/cli.md says what the commands say: their list, their sentences and their exit codes."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import typer

from taskyard import errors
from taskyard.errors import (
    InvalidPayload,
    NotPermitted,
    Refused,
    TaskyardError,
    UnknownJobType,
    UnknownQueue,
)
from taskyard.ops.cli import error_output
from taskyard.ops.cli.commands import COMMANDS
from taskyard.ops.cli.error_output import with_next_step
from taskyard.ops.cli.lazy_commands import Noun
from taskyard.ops.cli.standard_streams import BROKEN_PIPE

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")


def documented_commands() -> dict[str, str]:
    rows = re.findall(r"^\| `taskyard ([a-z ]+)` \| (.+) \|$", PAGE, re.MULTILINE)
    return dict(rows)


def real_commands() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, entry in COMMANDS.items():
        if isinstance(entry, Noun):
            found |= {f"{name} {verb}": command.help for verb, command in entry.verbs.items()}
        else:
            found[name] = entry.help
    return found


def test_the_page_lists_every_command_with_its_own_sentence() -> None:
    real = {
        name: sentence[0].lower() + sentence[1:].rstrip(".")
        for name, sentence in real_commands().items()
    }

    assert documented_commands() == real


def test_the_page_lists_every_exit_code() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \| ", PAGE, re.MULTILINE)}
    own = {
        error_output.USAGE,
        error_output.UNREACHABLE,
        error_output.FAULT,
        error_output.INTERRUPTED,
    }
    raised = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, TaskyardError)
    }

    assert documented == {0, BROKEN_PIPE} | own | raised


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TaskyardError("odd"), 1),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (errors.InvalidReason("says nothing"), 2),
        (InvalidPayload("no"), 2),
        (UnknownJobType("no"), 2),
        (errors.MissingSetting("TASKYARD_X", "a server", "Set it"), 2),
        (typer.BadParameter("no"), 2),
        (ModuleNotFoundError("no", name="lxml"), 2),
        (errors.ServerUnreachable("Redis", "redis://", "refused", "Start it"), 3),
        (errors.SchemaMismatch("old"), 3),
        (errors.NotFound("none"), 4),
        (Refused("no"), 5),
        (errors.GateClosed("shut"), 5),
        (NotPermitted("no"), 6),
        (errors.ResultTimeout("late"), 7),
        (errors.DeadLettered("id"), 8),
        (errors.JobFailed("id", "cancelled"), 8),
        (RuntimeError("a fault"), 70),
        (KeyboardInterrupt(), 130),
        (SystemExit(BROKEN_PIPE), 141),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_a_failure_ends_with_its_code_which_the_page_lists(
    error: BaseException, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert error_output.report_failure(error, error_output.Switches()) == code
    assert re.search(rf"^\| {code} \| ", PAGE, re.MULTILINE)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("error", "path", "ending"),
    [
        (Refused("no."), "taskyard dlq replay", "no. See: taskyard dlq list"),
        (UnknownQueue("none"), "taskyard worker", "none. See: taskyard env"),
        (UnknownJobType("none"), "taskyard jobs enqueue", "none. See: taskyard types list"),
        (InvalidPayload("a\n  b"), "taskyard jobs enqueue", "  See: taskyard jobs enqueue --help"),
        (NotPermitted("no"), "taskyard dlq replay", "taskyard tokens list"),
        (Refused("Run: it"), "taskyard jobs show", "Run: it"),
        (TaskyardError("odd"), "taskyard up", "odd"),
    ],
)
def test_a_refusal_ends_with_the_next_command(error: TaskyardError, path: str, ending: str) -> None:
    assert with_next_step(error, path).endswith(ending)
