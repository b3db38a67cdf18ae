"""`taskyard worker`: what becomes of its own environment in Celery's worker."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from taskyard.access import Token
from taskyard.errors import InvalidSettings
from taskyard.ops.cli import worker
from taskyard.ops.up import up_command as up
from taskyard.settings import load


def test_a_worker_inherits_no_credential_of_whoever_starts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {
        "TASKYARD_BROKER_URL": "redis://127.0.0.1:1/0",
        "TASKYARD_REDIS_URL": "redis://127.0.0.1:1/0",
        "TASKYARD_TOKEN": Token.new().reveal(),
        "TASKYARD_SIGNING_KEY": "/etc/taskyard/ada.pem",
        "OWN_VARIABLE": "stays",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    started: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, argv, environ: started.append(environ))
    context: Any = SimpleNamespace(args=[])

    worker.command(context, pool="all", concurrency=None, quiet=False)

    (environ,) = started
    assert environ["OWN_VARIABLE"] == "stays"
    assert environ["TASKYARD_REDIS_URL"] == given["TASKYARD_REDIS_URL"]
    assert {"TASKYARD_TOKEN", "TASKYARD_SIGNING_KEY"}.isdisjoint(environ)
    settings = load(environ).settings
    assert (settings.token, settings.signing_key) == (None, None)


@pytest.mark.parametrize("name", ["token", "signing_key"])
def test_a_worker_whose_file_has_a_credential_is_not_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    held = Token.new().reveal() if name == "token" else "/etc/taskyard/ada.pem"
    (tmp_path / "taskyard.toml").write_text(f'{name} = "{held}"\n')
    monkeypatch.chdir(tmp_path)
    for server in ("BROKER", "REDIS"):
        monkeypatch.setenv(f"TASKYARD_{server}_URL", "redis://127.0.0.1:1/0")
    # Set empty, as `up` does for its processes, a variable does not hide the file's value.
    monkeypatch.setenv(f"TASKYARD_{name.upper()}", "")
    started: list[object] = []
    monkeypatch.setattr(os, "execve", lambda *given: started.append(given))
    context: Any = SimpleNamespace(args=[])

    with pytest.raises(InvalidSettings, match=f"got: {name}. Its jobs could act"):
        worker.command(context, pool="all", concurrency=None, quiet=False)
    with pytest.raises(InvalidSettings, match=f"got: {name}. Its jobs could act"):
        up.command(workers=True, concurrency=1, drain=1.0, builtin=False)
    assert started == []
