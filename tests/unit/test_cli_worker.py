"""`taskyard worker`: what becomes of its own environment in Celery's worker."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from taskyard.access import Token
from taskyard.ops.cli import worker
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
