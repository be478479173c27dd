"""Intervals, scaling laws and the paper's findings, against known truths and the paper's own tables."""

import re

import numpy as np
import pytest

from sftmix_jax.analysis import cells, findings, fits, laws, uncertain
from sftmix_jax.analysis.cells import Cells
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.scores import conflict, conflict_in_losses, transfer
from sftmix_jax.analysis.uncertain import Uncertain


def test_intervals_over_seeds_and_questions_cover_the_truth():
    """Crossed random effects: a seed shifts every question, a question is as hard for every seed."""
    covered = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        seeds, questions = rng.normal(0, 0.5, (5, 1)), rng.normal(0, 1, (1, 60))
        found = uncertain.from_verdicts(3 + seeds + questions + rng.normal(0, 1, (5, 60)))
        covered += found.low <= 3 <= found.high
    assert 176 <= covered <= 199


def test_differences_on_the_same_questions_are_paired():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, (1, 100)) + np.zeros((3, 1))
    first, second = uncertain.from_verdicts(hard), uncertain.from_verdicts(hard + 0.1)
    change = second - first
    assert change.value == pytest.approx(0.1)
    assert change.high - change.low < 1e-9 < first.high - first.low


LEVELS = np.array([1, 4, 16, 64, 256]) * 10.0
LAWS = {
    "power": lambda x: 0.6 - 0.5 * (x / 10) ** -0.4,
    "saturating": lambda x: 0.1 + 0.5 * (1 - np.exp(-x / 300)),
    "log_linear": lambda x: 0.05 + 0.08 * np.log(x),
}


def recovered(law: str, trials: int, seeds: int = 3) -> tuple[float, float]:
    """How often the 95 % band holds the true curve, and how often the law is recognised."""
    x, grid = np.repeat(LEVELS, seeds), np.geomspace(10, 2560, 9)
    inside, right = [], 0
    for trial in range(trials):
        noise = 0.02 * np.random.default_rng(trial).standard_normal(len(x))
        found = fits.fit(x.tolist(), (LAWS[law](x) + noise).tolist(), seed=trial)
        low, high = found.band(grid)
        inside.append((low <= LAWS[law](grid)) & (LAWS[law](grid) <= high))
        right += found.law == law
    return float(np.mean(inside)), right / trials


@pytest.mark.parametrize("law", LAWS)
def test_a_known_law_is_recognised(law):
    covered, right = recovered(law, 20)
    assert covered >= 0.85 and right >= 0.6


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_bands_hold_known_laws(law):
    """95 % bands hold the truth at least 90 % of the time, over 200 simulations."""
    covered, _ = recovered(law, 200)
    print(f"{law}: {covered:.3f}")
    assert covered >= 0.9


def test_saturation_is_where_doubling_stops_to_pay():
    x = np.repeat(LEVELS, 3)
    found = fits.fit(x.tolist(), LAWS["saturating"](x).tolist())
    wanted = next(a for a in np.geomspace(1, 1e4, 4000) if a > 300 and
                  LAWS["saturating"](2 * a) - LAWS["saturating"](a) < 0.01)  # fmt: skip
    assert found.saturation(0.01, most=1e4) == pytest.approx(wanted, rel=0.1)
    endless = fits.fit(x.tolist(), LAWS["log_linear"](x).tolist())
    assert endless.saturation(0.01, most=1e4) is None


def test_too_few_amounts_make_no_law():
    with pytest.raises(ValueError, match="at least four different amounts, there are 3"):
        fits.fit([1, 2, 3, 3], [1, 2, 3, 3])


PAPER = {
    "math keeps rising with its own data": "holds",
    "code keeps rising with its own data": "holds",
    "general flattens": "holds",
    "mixing helps where data is scarce": "holds",
    "mixing hurts at full data (conflict)": "holds",
    "mixing turns from gain to loss between 1/64 and 1/16": "holds",
    "the amount of an ability's own data outweighs its ratio": "holds",
    "sequential training forgets the specialised abilities": "holds",
    "DMT at k = 1/256 keeps more of math and code than no replay": "holds",
    "DMT at k = 1/256 costs the general ability nothing": "holds",
}


def test_the_papers_tables_give_the_papers_verdicts():
    found = {finding.claim: finding for finding in findings.find(cells.published("7b"))}
    assert {claim: found[claim].verdict for claim in PAPER} == PAPER
    crossing = findings.crossover_part(cells.published("7b"))
    assert 4**-3 < 4**crossing.value < 4**-2  # between 1/64 and 1/16


def test_where_a_source_holds_two_of_itself_nothing_is_found():
    """All set-ups the same but for noise: no finding holds surely, and most cannot be told."""
    same = {key: uncertain.published(0.5 if key[0] != "general" else 5.0, 0.02, str(key))
            for key in cells.published("7b")._cells}  # fmt: skip
    found = findings.find(Cells(same, "noise", 1))
    assert sum(finding.verdict == "cannot tell" for finding in found) >= 4


def test_what_was_not_run_is_not_judged():
    found = findings.find(Cells({}, "nothing", 0))
    assert {finding.verdict for finding in found} == {"not measured"}


def test_regression_recovers_known_effects():
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=40), rng.normal(size=40)
    y = 3 * own - 1 * other
    scores = [uncertain.published(float(value), 0.01, str(i)) for i, value in enumerate(y)]
    mine, theirs = findings.standardised_effects(own, other, scores)
    assert mine.value == pytest.approx(3 * own.std() / y.std(), abs=0.02)
    assert theirs.value == pytest.approx(-other.std() / y.std(), abs=0.02)
    assert findings.explained(np.column_stack([own, other]), y) == pytest.approx(1.0)


def test_the_papers_general_ability_is_saturated_early_and_its_mathematics_is_not():
    table = laws.table(laws.scores(cells.published("7b")))
    rows = {(row[0].split(",")[0], "own" in row[1].split()[1]): row for row in table.rows}
    assert len(rows) == len(table.rows) == 6  # against its own data and against the others', each ability
    assert rows["math", True][4] == "not up to k = 1" and rows["math", True][5][1] > 2
    assert rows["general", True][4].startswith("from k = 0.0") and abs(rows["general", True][5][1]) < 0.1
    # all of its own data beside more and more of the others': mathematics does not care
    assert rows["math", False][4] == "wherever it was measured"


def test_losses_make_laws_too():
    """Held-out losses of three seeds at five parts, made by a known law."""
    rng = np.random.default_rng(0)
    found = [
        Result(f"{k}-{seed}", {"strategy": "single", "source": "math", "k": k, "seed": seed}, "math", "i", 1, True,
               "gsm8k", "math", "strict", True, 0.5, 0.4, 0.6, 100, 1.0, 1, 0,
               float(0.5 + 0.4 * cells.number(k) ** -0.3 + 0.01 * rng.standard_normal()), "0", "{}", "")
        for k in ("1/256", "1/64", "1/16", "1/4", "1") for seed in range(3)
    ]  # fmt: skip
    (row,) = laws.table(laws.losses(found, "7b")).rows
    assert row[:3] == ["math, held-out loss", "its own data alone", "power"]
    assert row[5][1] == pytest.approx(0.4 * (2**-0.3 - 1), abs=0.02)


def test_single_against_mixed_and_one_source_on_the_others():
    """By hand: mathematics loses 10 points by mixing at k = 1 and gains 5 at 1/16; code data gives it 2."""
    flat = np.zeros(uncertain.RESAMPLES)
    scores = {
        ("single", "math", "1", ""): 0.6,
        ("single", "math", "1/16", ""): 0.3,
        ("mixed", "", "1", ""): 0.5,
        ("mixed", "", "1/16", ""): 0.35,
        ("single", "code", "1", ""): 0.22,
        ("single", "code", "1", "base"): 0.2,
    }
    axes = ("strategy", "source", "k", "stage")
    ours = Cells({("math", tuple(zip(axes, at, strict=True))): Uncertain(value, flat + value)
                  for at, value in scores.items()}, "by hand", 3)  # fmt: skip
    table = conflict(ours, cells.published("7b"), "7b")
    assert [(row[1][0], row[4][0], row[5][1]) for row in table.rows] == [
        ("1/16", "+5.0 (5.0 to 5.0)", 0.0), ("1", "-10.0 (-10.0 to -10.0)", 1.0)
    ]  # fmt: skip
    assert [round(row[6][1], 4) for row in table.rows] == [-0.0293, -0.0157]  # the paper's 32.97 - 35.9, 47.53 - 49.1
    (given,) = [row for row in transfer(ours).rows if row[0] == "code"]
    assert (given[1][0], given[2][0]) == ("1", "+2.0 (2.0 to 2.0)")


def test_leaving_nothing_out_finds_nothing():
    same = Uncertain(0.5, np.full(100, 0.5))
    setups = [{"strategy": "mixed", "k": "1"}, {"strategy": "mixed", "k": "1", "without": "code,math"}]
    every = {(ability, tuple(sorted(s.items()))): same for ability in ("math", "code") for s in setups}
    found = findings.ablation(cells.Cells(every, "here", 3))
    assert found.verdict == "not measured" and "nothing was left out" in found.numbers


def test_full_data_is_the_most_that_was_measured():
    """By hand: at k = 4 mixing takes 4 of 40 points; at k = 1 it gave 10, on which the verdict must not rest."""

    def cell(value: float, **setup: str) -> tuple[tuple[str, tuple[tuple[str, str], ...]], Uncertain]:
        return ("math", tuple(sorted(setup.items()))), uncertain.from_verdicts(np.full((3, 50), value))

    some = Cells(dict([
        cell(0.2, strategy="single", source="math", k="1"), cell(0.3, strategy="mixed", k="1"),
        cell(0.4, strategy="single", source="math", k="4"), cell(0.36, strategy="mixed", k="4"),
    ]), "here", 3)  # fmt: skip
    found = {k: change.value for k, change in findings.mixed_minus_single(some)}
    assert found == {"1": pytest.approx(0.25), "4": pytest.approx(-0.1)}
    verdict = findings.mixing_hurts_with_much(some)
    assert verdict.verdict == "holds" and "at k = 4" in verdict.numbers


def trained(strategy: str, k: str, seed: int, loss: float, **more: str) -> Result:
    """What one experiment says of mathematics after its last stage."""
    labels = {"strategy": strategy, "k": k, "seed": seed, "size": "tiny", **more}
    return Result(
        f"{strategy}-{k}-{seed}", labels, "s", "id", 1, True, "tiny_math", "math", "strict", True, 0.5, 0.4, 0.6, 100,
        1.0, 10, 0, loss, "0", "{}", "",
    )  # fmt: skip


def test_conflict_in_losses_is_paired_by_seed():
    """By hand: differences 0.1, 0.2, 0.3, so 0.2 ± 4.303 · 0.1/√3 (Student's t, two degrees of freedom)."""
    found = [trained("single", "4", seed, 1.0 + seed, source="math") for seed in range(3)]
    found += [trained("mixed", "4", seed, 1.1 + 1.1 * seed) for seed in range(3)]
    found += [trained("mixed", "4", 0, 9.0, setup="a"), trained("mixed", "1", 0, 1.0), trained("single", "1", 1, 1.0)]
    table = conflict_in_losses(found)
    ((ability, k, alone, mixed, change, worse),) = table.rows  # at k = 1 no seed has both
    assert (ability, k[0], alone[1], mixed[1]) == ("math", "4", pytest.approx(2.0), pytest.approx(2.2))
    assert change[1] == pytest.approx(0.2) and worse[1] > 0.95
    low, high = map(float, re.findall(r"[-+][\d.]+", change[0])[1:])
    assert low == pytest.approx(0.2 - 4.303 * 0.1 / 3**0.5, abs=0.04)
    assert high == pytest.approx(0.2 + 4.303 * 0.1 / 3**0.5, abs=0.04)
