"""Who acts."""

from __future__ import annotations

import pytest

from taskyard.control.authenticate_operator import local_identity
from taskyard.errors import NotPermitted
from taskyard.settings import Settings


def test_nobody_is_trusted_by_default_and_the_error_names_the_remedy() -> None:
    with pytest.raises(NotPermitted, match="TASKYARD_TRUST_LOCAL=1"):
        local_identity(Settings())


def test_the_local_user_is_named_by_the_system_and_not_by_a_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("USER", "somebody-else")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    identity = local_identity(Settings(trust_local=True))
    assert identity.subject.startswith("local:")
    assert "somebody-else" not in identity.subject
    assert identity.via == "local"
