"""What JSON cannot hold is packed, travels as a letter and comes back the same."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.wire import clean_text, pack, redact_text, redact_url, unpack

ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.text()
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | ANY_TEXT
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.just(UTC))
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.dictionaries(ANY_TEXT | st.sampled_from(["$x", "$map"]), inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_any_value_survives_packing_and_plain_json(value):
    text = json.dumps(pack(value), allow_nan=False)
    text.encode("utf-8")
    assert "\\u0000" not in text
    assert unpack(json.loads(text)) == value


def test_not_a_number_survives_too():
    assert math.isnan(unpack(pack({"x": float("nan")}))["x"])


def test_an_unknown_object_is_kept_as_what_it_says_of_itself():
    assert unpack(pack({"x": object})) == {"x": "<class 'object'>"}


def test_endless_nesting_is_cut_instead_of_raising():
    value: list = []
    for _ in range(5000):
        value = [value]
    assert "nested too deep" in json.dumps(pack(value))


@given(ANY_TEXT)
def test_cleaned_text_fits_every_store(text):
    assert "\x00" not in clean_text(text)
    clean_text(text).encode("utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "redis://:s3c@ret@host:6379/0",
        "redis://user:s3c/ret@host",
        "postgresql+psycopg2://u:s3cret@h/db",
        "Authorization: Bearer s3cret-token-value",
        "authorization=Basic s3cret",
        "password='s3cret of many words'",
        'token: "s3cret"',
        '{"api_key": "s3cret"}',
        "pwd=s3cret;host=x",
        "http://h/?password=s3cret&x=1",
    ],
)
def test_no_secret_survives_in_shown_text(text):
    shown = redact_text(text)
    assert "s3c" not in shown
    assert "[redacted]" in shown


def test_a_url_that_cannot_be_parsed_is_shown_all_the_same():
    assert redact_url("redis://[::1") == "redis://[::1"
    assert redact_url("redis://host:6379/0") == "redis://host:6379/0"


def test_moments_and_decimals_keep_their_kind():
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    assert unpack(pack([moment, Decimal("1.10")])) == [moment, Decimal("1.10")]
