"""Shares by weight of which few rows are due: what comes out is said."""

import numpy as np
import pytest

from sftmix_jax.data import mixture
from sftmix_jax.data.mixture import Pool, Share


def lines(weights, lengths, budget, unit="tokens"):
    pools = {name: Pool(np.full(500, size), np.full(500, size)) for name, size in lengths.items()}
    shares = {name: Share(weight=weight) for name, weight in weights.items()}
    order = mixture.order(pools, shares, epochs=1, budget=budget, unit=unit, seed=0)
    return mixture.missed(order, pools, shares, unit)


def test_a_share_that_whole_rows_miss_is_reported_with_what_comes_out():
    """1.5 % of 30,000 tokens are one and a half rows of 300: it gets two."""
    found = lines({"a": 98.5, "b": 1.5}, {"a": 100, "b": 300}, 30_000)
    assert len(found) == 1 and found[0].startswith("the share of 'b' was asked to be 1.500% of the tokens and comes ")
    assert "comes out as 1.987%" in found[0] and "only 2 of its rows" in found[0]  # 600 of 29,600 + 600


@pytest.mark.parametrize("unit", mixture.UNITS)
def test_shares_of_many_rows_are_reported_by_nothing(unit):
    assert lines({"a": 3, "b": 1}, {"a": 100, "b": 100}, 1_000_000 if unit != "examples" else 10_000, unit) == []


def test_exact_shares_are_not_weighed():
    pools = {"a": Pool(np.full(9, 5), np.full(9, 5))}
    shares = {"a": Share(count=3)}
    order = mixture.order(pools, shares, epochs=1, budget=None, unit="examples", seed=0)
    assert mixture.missed(order, pools, shares, "examples") == []
