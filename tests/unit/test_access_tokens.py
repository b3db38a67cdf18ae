"""A token's text: what is read as one, and that nothing shows its secret."""

from __future__ import annotations

import json
import logging
import traceback
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import SecretStr

from taskyard.access import Token
from taskyard.errors import InvalidSettings, NotPermitted, TokenRefused
from taskyard.settings import Settings, load
from taskyard.wire.redacted_logs import logger
from taskyard.wire.redaction import mask_tokens, redact, redact_text, redacted_repr

WHOLE = Token("0123456789ab", "s" * 43)


def test_a_new_token_is_read_again_and_is_like_no_other() -> None:
    first, second = Token.new(), Token.new()
    assert Token.parse(first.reveal()) == first
    assert Token.parse(f" {first.reveal()}\r\n") == first
    assert first.id != second.id
    assert first.secret != second.secret
    assert first.digest() == sha256(first.secret.encode()).digest()


def test_a_new_secret_keeps_the_id() -> None:
    renewed = WHOLE.with_new_secret()
    assert renewed.id == WHOLE.id
    assert renewed.secret != WHOLE.secret


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ty_",
        "hunter2",
        WHOLE.reveal()[:-1],
        WHOLE.reveal() + "s",
        WHOLE.reveal().upper(),
        WHOLE.reveal().replace("ty_", "tx_"),
        WHOLE.reveal().replace("0", "g"),
        WHOLE.reveal().replace("sss", "s s"),
        WHOLE.reveal().replace("sss", "s+/"),
        WHOLE.reveal().replace("sss", "s\x00s"),
        WHOLE.reveal().replace("sss", "s\u0661s"),
        WHOLE.reveal() + "\n" + WHOLE.reveal(),
        "Bearer " + WHOLE.reveal(),
        "x" * 100_000,
    ],
)
def test_what_is_no_token_is_refused_in_words_that_hold_nothing_of_it(text: str) -> None:
    with pytest.raises(TokenRefused, match=r"does not hold a token\. Expected ty_, 12") as caught:
        Token.parse(text)
    assert caught.value.code == "malformed"
    assert isinstance(caught.value, NotPermitted)
    assert "taskyard tokens create" in str(caught.value)
    if len(text) > len("ty_"):
        assert text not in str(caught.value)
    assert WHOLE.secret[:10] not in "".join(traceback.format_exception(caught.value))


def test_no_repr_of_a_token_or_of_the_settings_shows_the_secret() -> None:
    settings = Settings(token=SecretStr(WHOLE.reveal()))
    shown = repr(WHOLE) + str(WHOLE) + repr(settings) + str(settings.model_dump())
    shown += settings.model_dump_json()
    assert WHOLE.secret not in shown


def test_a_wrong_value_of_the_token_setting_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "taskyard.toml").write_text('token = ["hunter2"]\n')
    with pytest.raises(InvalidSettings, match="token") as caught:
        load({}, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_the_token_comes_from_its_variable_and_an_empty_one_is_none(tmp_path: Path) -> None:
    given = load({"TASKYARD_TOKEN": WHOLE.reveal()}, tmp_path).settings.token
    assert given is not None
    assert given.get_secret_value() == WHOLE.reveal()
    assert load({"TASKYARD_TOKEN": ""}, tmp_path).settings.token is None


@pytest.mark.parametrize("cut", [0, 5, 20])
def test_a_token_is_masked_wherever_it_is_shown(cut: int) -> None:
    text = WHOLE.reveal()[: len(WHOLE.reveal()) - cut]
    masked = "ty_0123456789ab_[redacted]"
    said = f"I typed {text} by mistake"
    assert redact_text(said) == mask_tokens(said) == f"I typed {masked} by mistake"
    assert redact({"note": [text]}) == {"note": [masked]}
    assert redacted_repr([text]) == f"['{masked}']"
    assert json.dumps(redact({"a": said})).count("sssss") == 0


def test_what_only_begins_like_a_token_is_left_as_it_is() -> None:
    for text in ("priority_3 and quantity_12", "ty_0123456789ab", "ty_xyz_secretly", ""):
        assert mask_tokens(text) == text


def test_a_log_line_masks_a_token(caplog: pytest.LogCaptureFixture) -> None:
    logger("taskyard.test").warning("refused %s", WHOLE.reveal(), extra={"given": WHOLE.reveal()})
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert WHOLE.secret not in record.getMessage() + str(vars(record))
