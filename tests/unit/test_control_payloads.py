"""An edited payload is judged as its worker would judge it, where that is known here."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from taskyard.control import Edit, KnownTypes
from taskyard.control.check_edited_payload import check_edit
from taskyard.errors import InvalidPayload
from taskyard.jobs import Catalogue
from taskyard.jobs.handler_registry import Registry
from taskyard.jobs.types import describe


class Order(BaseModel):
    cents: int


@pytest.fixture
def known() -> KnownTypes:
    handlers = Registry()

    @handlers.job("charge")
    def charge(payload: Order) -> None: ...

    @handlers.job("log")
    def log(payload: dict[str, Any]) -> None: ...

    return KnownTypes(Catalogue.load(built_in=True), handlers)


@pytest.mark.parametrize("edit", [Edit([{"cents": 7}]), Edit(kwargs={"cents": 7})])
def test_what_fits_is_checked(known: KnownTypes, edit: Edit) -> None:
    assert check_edit(known, "charge", edit)


def test_what_does_not_fit_is_refused_by_field_and_value(known: KnownTypes) -> None:
    with pytest.raises(InvalidPayload, match=r"'charge':\n  cents: .* got: 'many'"):
        check_edit(known, "charge", Edit([{"cents": "many"}]))


def test_a_type_without_a_handler_here_is_judged_by_its_own_model(known: KnownTypes) -> None:
    with pytest.raises(InvalidPayload, match="plan_generation"):
        check_edit(known, "plan_generation", Edit([{}]))


def test_more_than_one_payload_is_refused_with_the_way_out(known: KnownTypes) -> None:
    with pytest.raises(InvalidPayload, match="got 2 positional arguments and 0 named ones"):
        check_edit(known, "charge", Edit([1, 2]))


def test_a_handler_that_takes_anything_leaves_nothing_to_check(known: KnownTypes) -> None:
    assert check_edit(known, "log", Edit([1]))


@pytest.mark.parametrize("job_type", ["legacy.pay", None])
def test_what_is_not_known_here_is_left_to_the_worker(
    known: KnownTypes, job_type: str | None
) -> None:
    assert not check_edit(known, job_type, Edit([1, 2]))
    assert not check_edit(None, "charge", Edit([1, 2]))


class Line(BaseModel):
    cents: int


class Basket(BaseModel):
    lines: list[Line]


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ({}, "lines: this required field is missing; the payload has no fields"),
        ({"liness": []}, "lines: this required field is missing; the payload has field 'liness'"),
        (
            {"lines": [{"cent": 7, "password": "hunter2"}]},
            (
                "lines.0.cents: this required field is missing; "
                "'lines.0' has fields 'cent', 'password'"
            ),
        ),
        (
            {name: name for name in "abcdefg"},
            (
                "lines: this required field is missing; "
                "the payload has fields 'a', 'b', 'c', 'd', 'e' and 2 more"
            ),
        ),
    ],
)
def test_a_missing_field_is_named_beside_the_fields_that_came(
    payload: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        Basket.model_validate(payload)

    said = f"the payload does not fit job type 'buy':\n  {sentence}"
    assert describe("buy", raised.value) == said
