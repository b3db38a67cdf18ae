"""Redaction: what looks like a secret is never shown, everything else is."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from taskyard.wire.redaction import MASK, redact, redact_text, redact_url, redacted_repr

SECRET = "hunter2"  # noqa: S105 - it must never be shown
SECRET_KEYS = [
    "password",
    "DB_PASSWORD",
    "passwd",
    "passphrase",
    "client_secret",
    "access_token",
    "apiKey",
    "api-key",
    "x_api_key",
    "Authorization",
    "aws_credentials",
    "Set-Cookie",
    "private_key",
    "private-key",
    "pass",
    "db_pass",
    "passcode",
    "pwd",
    "signature",
    "credential",
    "cookie",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
HARMLESS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("xyz 123", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner, max_size=3)
    ),
    max_leaves=10,
)
WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789!$*+-_~", min_size=8, max_size=20)


def holds(value: Any, secret: str) -> bool:
    if isinstance(value, dict):
        return any(holds(item, secret) for item in value.values())
    if isinstance(value, list | tuple):
        return any(holds(item, secret) for item in value)
    return isinstance(value, str) and secret in value


@pytest.mark.parametrize("key", SECRET_KEYS)
@given(inner=JSON)
def test_the_value_of_a_secret_key_is_masked_whatever_it_is(key: str, inner: Any) -> None:
    assert redact({"outer": [{key: inner}]}) == {"outer": [{key: MASK}]}


@given(JSON, st.sampled_from(SECRET_KEYS), WORDS)
def test_a_secret_is_found_at_any_depth(around: Any, key: str, secret: str) -> None:
    wrapped: Any = {key: secret}
    for level in range(6):
        wrapped = [wrapped, 1] if level % 2 else {"around": 2, "inner": wrapped}
    assert not holds(redact(wrapped), secret)


@given(HARMLESS)
def test_what_is_harmless_is_shown_as_it_is(value: Any) -> None:
    assert redact(value) == value


@given(JSON)
def test_redacting_twice_changes_nothing_more(value: Any) -> None:
    once = redact(value)
    assert redact(once) == once


@given(JSON)
def test_the_original_is_left_alone(value: Any) -> None:
    document = {"password": SECRET, "value": value}
    redact(document)
    assert document == {"password": SECRET, "value": value}


@given(JSON, st.sampled_from(SECRET_KEYS), WORDS)
def test_what_is_shown_of_a_value_is_the_repr_of_what_redaction_leaves(
    around: Any, key: str, secret: str
) -> None:
    texts = (f"{key}={secret}", f"redis://:{secret}@host", f"Bearer {secret}", secret)
    for value in (around, {key: secret}, [around, {"inner": {key: secret}}], *texts, list(texts)):
        assert redacted_repr(value) == repr(redact(value))


@pytest.mark.parametrize("value", [(1, ("a",)), {"a": (1,)}, [[[]] * 3] * 20, "a (b) c", {}, None])
def test_a_value_without_a_secret_is_shown_as_redaction_would(value: Any) -> None:
    assert redacted_repr(value) == repr(redact(value))


def deep(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = [value]
    return value


def test_what_is_nested_beyond_the_bound_is_not_shown() -> None:
    assert SECRET not in redacted_repr(deep(SECRET, 40))


# What a case-insensitive expression takes for an ASCII letter, besides its capital. One
# expression for all letters first: a search for each in every code point takes seconds.
LOOKALIKES = [
    (letter, chr(code))
    for code in range(128, 0x11000)
    if re.fullmatch("[a-z]", chr(code), re.IGNORECASE)
    for letter in "abcdefghijklmnopqrstuvwxyz"
    if re.fullmatch(letter, chr(code), re.IGNORECASE)
]


def test_the_lookalikes_are_those_that_are_known() -> None:
    assert sorted(letter for letter, _ in LOOKALIKES) == ["i", "i", "k", "s"]


@pytest.mark.parametrize(("letter", "lookalike"), LOOKALIKES)
def test_a_lookalike_of_a_letter_or_its_capital_hides_no_secret(
    letter: str, lookalike: str
) -> None:
    def spellings(word: str) -> tuple[str, str]:
        return word.upper(), word.lower().replace(letter, lookalike)

    for name in (name for key in (*SECRET_KEYS, "signature") for name in spellings(key)):
        assert SECRET not in redacted_repr({name: SECRET}), name
    for name in (name for key in SECRET_KEYS for name in spellings(key)):
        assert SECRET not in redacted_repr([f"{name}={SECRET}"]), name
        assert SECRET not in redact_text(f"{name}: '{SECRET}'"), name
    for name in spellings("authorization"):
        assert SECRET not in redact_text(f"{name}: Basic {SECRET}"), name
    for name in spellings("bearer"):
        assert SECRET not in redact_text(f"{name} {SECRET * 2}"), name


@pytest.mark.parametrize("word", ["bearer", "Bearer", "BEARER", "BeArEr"])
def test_a_bearer_token_is_masked_however_the_word_is_written(word: str) -> None:
    assert redact_text(f"sent {word} {SECRET * 2}") == f"sent {word} {MASK}"


def test_a_bottomless_structure_ends_in_a_mask() -> None:
    deep: Any = SECRET
    for _ in range(100):
        deep = [deep]
    assert not holds(redact(deep), SECRET)
    loop: list[Any] = []
    loop.append(loop)
    assert str(MASK) in str(redact(loop))


@given(st.sampled_from(["password", "token", "API_KEY", "client_secret"]), WORDS, st.text("xyz "))
def test_pairs_in_free_text_are_masked(key: str, secret: str, around: str) -> None:
    assume(secret not in f"{around} {key} {MASK}")
    for pair in (f"{key}={secret}", f"{key}: {secret}", f'"{key}": "{secret}"'):
        shown = redact_text(f"{around} {pair} {around}")
        assert secret not in shown
        assert key in shown, "the key stays, so that a reader knows what stood there"


@pytest.mark.parametrize("key", SECRET_KEYS)
@pytest.mark.parametrize("pair", ["{}={}", "{}: {}", "'{}': '{}'", '{{"{}":"{}"}}', "--{} = {}"])
def test_what_is_masked_as_a_key_is_masked_in_free_text_too(key: str, pair: str) -> None:
    shown = redact_text(f"sent {pair.format(key, SECRET)} on")
    assert SECRET not in shown
    assert key in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "header",
    [
        "Cookie: sessionid={0}; csrf={0}",
        "Set-Cookie: id={0}; Path=/",
        "{{'Cookie': 'a={0}; b=\"{0}\"'}}",
    ],
)
def test_every_cookie_of_a_header_is_masked_and_the_next_line_is_not(header: str) -> None:
    shown = redact_text(f"{header.format(SECRET)}\nHost: example")
    assert SECRET not in shown
    assert shown.endswith("\nHost: example")


@pytest.mark.parametrize(
    "text",
    [
        "bypass=on",
        "compass: north",
        "passed: 3, failed: 4",
        "passenger=7",
        "passes: 2",
        "it did pass the gate: well",
        "the api keys: none",
        "sign: off",
        "privately: said",
    ],
)
def test_an_ordinary_word_hides_nothing(text: str) -> None:
    assert redact_text(text) == text


def test_a_user_whose_name_is_a_secret_key_hides_the_password_too() -> None:
    assert "hunter2" not in redact_text("cannot reach redis://passwd00:hunter2@host:6379/0")


@pytest.mark.parametrize("key", ["bypass", "compass", "passed", "passenger", "passes", "private"])
def test_the_value_of_an_ordinary_key_is_shown(key: str) -> None:
    assert redact({key: "on"}) == {key: "on"}


@given(WORDS, WORDS)
def test_a_password_in_a_url_is_masked_in_text_and_alone(user: str, password: str) -> None:
    # A user that is called `passwd` reads as a key: more than the password is masked then.
    assume(redact({user: "on"}) == {user: "on"})
    secret = f"{password}#"
    url = f"redis://{user}:{quote(secret, safe='')}@host:6379/0"
    for shown in (redact_url(url), redact_text(f"cannot reach {url}, giving up")):
        assert f":{MASK}@host:6379/0" in shown
        assert f"{password}%23" not in shown
        assert user in shown


def test_a_password_with_an_at_sign_is_masked_whole() -> None:
    assert redact_url("redis://:one@two@host/0") == f"redis://:{MASK}@host/0"


@pytest.mark.parametrize(
    "url",
    ["redis://host:6379/0", "amqp://user@host//", "redis://[::1]:6379/0", "unix:///run/redis.sock"],
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert redact_url(url) == url
    assert redact_text(url) == url


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: ApiKey {SECRET}",
        f"Authorization: AWS4-HMAC-SHA256 Credential=AKIA/2020, Signature={SECRET}",
        f"PASSWORD := {SECRET}",
        f"password => '{SECRET}'",
        json.dumps({"body": json.dumps({"password": SECRET})}),
        json.dumps({"a": json.dumps({"b": json.dumps({"token": f'x" {SECRET}'})})}),
    ],
)
def test_no_scheme_sign_or_text_inside_of_text_hides_a_secret(text: str) -> None:
    assert SECRET not in redact_text(text)


def test_what_follows_a_quoted_secret_stays() -> None:
    inner = json.dumps({"password": "x", "customer": "Ada"})
    assert "Ada" in redact_text(json.dumps({"body": inner}))
