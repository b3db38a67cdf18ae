"""The median of the turns' ratios, and how far they lie apart."""

import pytest
from bench.spread import ratios, spread


def test_the_figure_is_the_median_of_the_turns_ratios_and_not_the_ratio_of_medians() -> None:
    ours, theirs = [100.0, 300.0, 90.0], [50.0, 300.0, 30.0]
    found = spread(ratios(ours, theirs))
    assert found.median == 2.0
    assert (found.lowest, found.highest, found.turns) == (1.0, 3.0, 3)


def test_one_spoilt_turn_moves_the_lowest_but_not_the_median() -> None:
    quiet = spread([2.0, 2.1, 1.9, 2.0, 2.0])
    noisy = spread([2.0, 2.1, 0.1, 2.0, 2.0])
    assert noisy.median == quiet.median
    assert noisy.lowest == 0.1


def test_quartiles_include_both_ends() -> None:
    found = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.lower_quartile, found.upper_quartile) == (2.0, 4.0)


def test_a_single_turn_is_its_own_spread() -> None:
    found = spread([1.23456])
    assert {found.median, found.lowest, found.lower_quartile, found.highest} == {1.235}
    assert found.turns == 1


def test_no_turn_and_a_turn_without_partner_are_refused() -> None:
    with pytest.raises(ValueError, match="needs at least one turn, got none"):
        spread([])
    with pytest.raises(ValueError, match="got 2 of ours and 1 of theirs"):
        ratios([1.0, 2.0], [1.0])
