"""Intervals, scaling laws and the paper's findings, against known truths and the paper's own tables."""

import dataclasses
import re

import numpy as np
import pytest
from scipy import optimize, stats

from sftmix_jax.analysis import cells, family, findings, fits, laws, power, rule, uncertain
from sftmix_jax.analysis.cells import Cells
from sftmix_jax.analysis.results import Result
from sftmix_jax.analysis.rule import Claim
from sftmix_jax.analysis.scores import _adjusted, conflict, conflict_in_losses, transfer
from sftmix_jax.analysis.uncertain import Uncertain, Verdicts


def seeded(values, name="", seeds=None, questions=None, best=1.0) -> Uncertain:
    """Verdicts [seeds, questions] of one task."""
    return uncertain.from_verdicts(np.asarray(values, float), best=best, seeds=seeds, questions=questions, name=name)


def test_intervals_over_seeds_and_questions_cover_the_truth():
    """Crossed random effects: a seed shifts every question, a question is as hard for every seed."""
    covered = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        seeds, questions = rng.normal(0, 0.5, (5, 1)), rng.normal(0, 1, (1, 60))
        found = seeded(3 + seeds + questions + rng.normal(0, 1, (5, 60)), best=0.0)
        covered += found.low <= 3 <= found.high
    assert 182 <= covered <= 199


def test_a_difference_over_seeds_alone_has_students_paired_interval():
    """No question varies: what is left is scipy's paired t over the seeds' differences."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 3, (2, 4)) + np.array([1, 5, 9, 2])  # what the seeds share
    change = uncertain.from_seeds(second) - uncertain.from_seeds(first)
    wanted = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert (change.low, change.high) == pytest.approx((wanted.low, wanted.high), rel=0.1)
    assert change.value == pytest.approx((second - first).mean())


def test_one_run_has_the_posterior_of_a_rate_under_jeffreys_prior():
    """3 of 40: beta(3.5, 37.5)."""
    found = seeded([[1.0] * 3 + [0.0] * 37])
    assert (found.low, found.high) == pytest.approx(stats.beta(3.5, 37.5).interval(0.95), abs=0.006)
    assert found.below(0.2) == pytest.approx(stats.beta(3.5, 37.5).cdf(0.2), abs=0.01)


def test_differences_on_the_same_questions_are_paired():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, (1, 100)) + np.zeros((3, 1))
    first, second = seeded(hard, best=0.0), seeded(hard + 0.1, best=0.0)
    change = second - first
    assert change.value == pytest.approx(0.1)
    assert change.high - change.low < 1e-9 < first.high - first.low


def test_an_unscored_question_leaves_a_difference_paired():
    """The second model passes 6 more of 100 questions. One unscored question leaves 99 pairs, and the text says so."""
    rng = np.random.default_rng(0)
    first = (rng.uniform(size=100) < 0.5).astype(float)[None].repeat(3, 0)
    second = first.copy()
    second[:, np.flatnonzero(first[0] == 0)[:6]] = 1
    names = [f"q{i}" for i in range(100)]
    lost = int(np.flatnonzero(first[0] == 1)[0])
    kept = [i for i in range(100) if i != lost]
    whole = seeded(second, "b", questions=names) - seeded(first, "a", questions=names)
    fewer = seeded(second[:, kept], "b", questions=[names[i] for i in kept]) - seeded(first, "a", questions=names)
    assert whole.value == pytest.approx(0.06) and fewer.value == pytest.approx(6 / 99)
    assert (fewer.low, fewer.high) == pytest.approx((whole.low, whole.high), abs=0.01)
    assert whole.restricted == "" and fewer.restricted == "99 of 100 questions of "


def test_seeds_are_paired_by_their_numbers():
    """Scores of 20, 40, 60 and 80 % by seed: on the two seeds that both have, nothing differs."""

    def of(*seeds: int) -> Uncertain:
        passed = {0: 20, 1: 40, 2: 60, 3: 80}
        return seeded([[float(i < passed[seed]) for i in range(100)] for seed in seeds], str(seeds), seeds)

    change = of(1, 2, 3) - of(0, 1, 2)
    assert change.value == 0.0 and change.restricted == "2 of 4 seeds" and change.runs == 2
    assert change.low < 0 < change.high and 0.4 < change.below() < 0.6
    apart = of(2, 3) - of(0, 1)
    assert apart.value == pytest.approx(0.4) and apart.restricted == "no seeds in common, unpaired"
    assert apart.low < 0.2 and apart.high > 0.6


def test_a_base_that_every_seed_shares_has_no_spread_of_seeds():
    rng = np.random.default_rng(0)
    base = Verdicts("base", "t", None, ("a", "b"), rng.uniform(size=(1, 2)), np.ones((1, 2)), 0.0)
    trained = Verdicts("x", "t", (0, 1, 2), ("a", "b"), rng.uniform(size=(3, 2)), np.ones((3, 2)), 0.0)
    change = uncertain.of(trained) - uncertain.of(base)
    assert (uncertain.of(base).runs, change.runs, change.restricted) == (None, 3, "")


LEVELS = np.array([1, 4, 16, 64, 256]) * 10.0
LAWS = {
    "power": lambda x: 0.6 - 0.5 * (x / 10) ** -0.4,
    "saturating": lambda x: 0.1 + 0.5 * (1 - np.exp(-x / 300)),
    "log_linear": lambda x: 0.05 + 0.08 * np.log(x),
    "logistic": lambda x: 0.1 + 0.7 / (1 + (x / 250) ** -2.0),
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
    least = 0.4 if law == "logistic" else 0.6  # five amounts do not always tell it from a saturating one
    assert covered >= 0.85 and right >= least


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
    wanted = next(
        a for a in np.geomspace(1, 1e4, 4000) if a > 300 and LAWS["saturating"](2 * a) - LAWS["saturating"](a) < 0.01
    )
    assert found.saturation(0.01, most=1e4) == pytest.approx(wanted, rel=0.1)
    endless = fits.fit(x.tolist(), LAWS["log_linear"](x).tolist())
    assert endless.saturation(0.01, most=1e4) is None


def test_too_few_amounts_make_no_law():
    with pytest.raises(ValueError, match="at least four different amounts, there are 3"):
        fits.fit([1, 2, 3, 3], [1, 2, 3, 3])


PAPER = {  # 95 % intervals by hand: standard errors of the rates of 1,319 and 164 questions, 0.106 of a rating
    "math keeps rising with its own data": ("holds", 5.73, 3.8),  # 49.1 - 43.37
    "code keeps rising with its own data": ("cannot tell", 6.82, 7.7),  # 18.4 - 11.58: 0 lies inside
    "general flattens": ("cannot tell", None, None),  # +0.3 of 100, -2.6 to 3.3
    "mixing helps where data is scarce": ("holds", 3.15, None),
    "mixing hurts at full data (conflict)": ("cannot tell", 2.18, None),  # mean of 1.57, 3.77 and 1.2
    "mixing turns from gain to loss between 1/64 and 1/16": ("cannot tell", None, None),
    "the amount of an ability's own data outweighs its ratio": ("cannot tell", None, None),
    "sequential training forgets the specialised abilities": ("holds", 7.46, None),
    "DMT at k = 1/256 keeps more of math and code than no replay": ("cannot tell", 5.88, None),  # alone it would hold
    "DMT at k = 1/256 costs the general ability nothing": ("cannot tell", -0.6, None),
    "without code and math in the general data, mixing at k = 1 hurts them less": ("cannot tell", 2.28, None),
}


def test_the_papers_tables_are_judged_by_the_same_rule():
    found = {finding.claim: finding for finding in findings.find(cells.published("7b"))}
    assert {claim: found[claim].verdict for claim in PAPER} == {claim: wanted[0] for claim, wanted in PAPER.items()}
    for claim, (_, value, half) in PAPER.items():
        said = re.findall(r"([-+][\d.]+) points \(([-\d.]+) to ([-\d.]+)\)", found[claim].numbers)
        if value is not None:
            assert float(said[0][0]) == pytest.approx(value, abs=0.06), claim
        if half is not None:
            assert float(said[0][2]) - float(said[0][1]) == pytest.approx(2 * half, rel=0.06), claim
    assert "its interval contains 0" in found["mixing hurts at full data (conflict)"].numbers
    kept = found["DMT at k = 1/256 keeps more of math and code than no replay"].numbers
    assert "tested alone it would be judged 'holds', among 11 findings it is not" in kept
    sure, middle, _, _ = findings.crossing(findings.crossover_part(cells.published("7b")))
    assert sure > 0.95 and 4**-3 < 4**middle < 4**-2  # between 1/64 and 1/16


def flat(**values: tuple[float, ...]) -> Cells:
    """An ability's own data alone, in points at 1/256 … 1, each known to a tenth of a point."""
    parts = findings.PARTS
    return Cells(
        {
            (ability, tuple(sorted({"strategy": "single", "source": ability, "k": k}.items()))): uncertain.published(
                value / 100 * (10 if ability == "general" else 1), 1e-3, f"{ability} {k}"
            )
            for ability, points in values.items()
            for k, value in zip(parts[-len(points) :], points, strict=True)
        },
        "by hand",
        3,
    )


def judged(claim: Claim) -> str:
    (found,) = rule.judge([claim])
    return found.verdict


def test_rising_is_of_the_last_step():
    """36, 60, 50: a slope over three parts would rise."""
    assert judged(findings.rising(flat(math=(20, 36, 60, 50)), "math")) == "the opposite holds"
    assert judged(findings.rising(flat(math=(20, 36, 50, 60)), "math")) == "holds"
    assert judged(findings.rising(flat(math=(20, 36, 60, 61)), "math")) == "no effect that matters"


def test_flattening_is_a_rise_and_then_a_last_step_that_does_not_matter():
    for values, verdict in (
        ((20, 40, 50, 55, 56), "holds"),
        ((20, 30, 40, 50, 60), "does not hold"),
        ((60, 50, 40, 30, 20), "does not hold"),
        ((20, 40, 50, 60, 40), "does not hold"),
    ):
        assert judged(findings.flattening(flat(general=values))) == verdict, values


@pytest.mark.parametrize(("others", "verdict"), [(0.0, "holds"), (1.5, "does not hold"), (-0.5, "does not hold")])
def test_an_own_amount_outweighs_the_others_only_where_that_has_no_effect(others, verdict):
    """Scores of 3 per log₄ of the own amount and so many times as much of the others'."""
    made = {}
    for setup, (specialised, general) in {"a": ("1", "k"), "b": ("k", "1"), "c": ("k", "1/64")}.items():
        for k in findings.PARTS:
            own, other = (np.log2(cells.number(k if part == "k" else part)) / 2 for part in (specialised, general))
            labels = tuple(sorted({"strategy": "mixed", "setup": setup, "k": k}.items()))
            for ability in ("math", "code"):
                value = 0.5 + 0.03 * (own + others * other)
                made[ability, labels] = uncertain.published(value, 1e-3, f"{ability} {labels}")
    assert judged(findings.amount_outweighs_ratio(Cells(made, "by hand", 3))) == verdict


def test_a_falling_curve_is_that_of_pooled_neighbours():
    """By hand: 5, 1, 3, -2 → 1 and 3 pooled; and scipy's for random heights."""
    assert findings.falling(np.array([5.0, 1.0, 3.0, -2.0])).tolist() == [5.0, 2.0, 2.0, -2.0]
    heights = np.random.default_rng(0).normal(size=(5, 40))
    wanted = [optimize.isotonic_regression(column, increasing=False).x for column in heights.T]
    assert findings.falling(heights) == pytest.approx(np.array(wanted).T)


def conflicting(*points: float, error: float = 1e-3) -> Cells:
    """Mathematics mixed minus alone, in points at 1/256 … 1."""
    made = {}
    for k, change in zip(findings.PARTS, points, strict=True):
        for labels, value in (
            ({"strategy": "single", "source": "math", "k": k}, 0.5),
            ({"strategy": "mixed", "k": k}, 0.5 + change / 100),
        ):
            setup = tuple(sorted(labels.items()))
            made["math", setup] = uncertain.published(value, error, str(setup))
    return Cells(made, "by hand", 3)


def test_a_crossing_is_named_only_where_there_is_one():
    found = findings.crossover(conflicting(9, 5, -5, -6, -9))
    assert judged(found) == "holds" and "at 1/32" in found.numbers
    for points in ((9, 8, 7, 6, 5), (-1, -2, -3, -4, -5), (9, 8, 7, 6, -5)):
        found = findings.crossover(conflicting(*points))
        assert judged(found) == "does not hold"
        assert ("; at" in found.numbers) == (points[-1] < 0 < points[0])
    noise = findings.crossover(conflicting(0, 0, 0, 0, 0, error=0.05))
    assert judged(noise) == "cannot tell" and "; at" not in noise.numbers


def test_one_run_has_no_probability_of_a_crossing_and_no_interval():
    """Mathematics mixed gains 30 of 100 questions at 1/256 and loses 30 at 1, in one run."""
    made = {}
    for k, passed in zip(findings.PARTS, (80, 70, 40, 30, 20), strict=True):
        alone = {"strategy": "single", "source": "math", "k": k}
        for labels, right in ((alone, 50), ({"strategy": "mixed", "k": k}, passed)):
            setup = tuple(sorted(labels.items()))
            made["math", setup] = seeded([[float(i < right) for i in range(100)]], str(setup))
    one = Cells(made, "by hand", 1)
    (finding,) = rule.judge([findings.crossover(one)])
    assert (finding.verdict, finding.numbers) == ("one run", "one run: crosses 0 at 1/25")
    caption = conflict(one, cells.published("7b"), "7b").caption
    assert "is not clear" in caption and "say nothing of another run" in caption
    for row in laws.table(laws.scores(one)).rows:
        assert row[4] == "one run" and re.fullmatch(r"one run: [-+][\d.]+", row[5][0])


def test_a_replay_costs_nothing_where_it_costs_a_tenth_of_the_gain_at_most():
    """Training gains 40 points, so 4 are allowed."""

    def of(cost: float) -> Cells:
        levels = {
            ("mixed_sequential", "0", ""): 6.0,
            ("mixed_sequential", "0", "base"): 2.0,
            ("dmt", "1/256", ""): 6.0 - cost,
        }
        return Cells(
            {
                ("general", tuple(sorted(zip(("strategy", "k", "stage"), labels, strict=True)))): uncertain.published(
                    value, 0.01, str(labels)
                )
                for labels, value in levels.items()
            },
            "",
            3,
        )

    assert judged(findings.replay_costs_nothing(of(0.3))) == "holds"
    assert judged(findings.replay_costs_nothing(of(0.5))) == "does not hold"
    assert "at most 10% of what training gained, 4.0 points" in findings.replay_costs_nothing(of(0.3)).numbers


def test_cells_that_are_all_0_cannot_be_told_apart():
    """20 questions, nothing right in either: neither holds, nor does it surely not."""
    made = {}
    for strategy, labels in (("multitask", {}), ("sequential", {})):
        for ability in ("math", "code"):
            setup = tuple(sorted({"strategy": strategy, **labels}.items()))
            made[ability, setup] = seeded(np.zeros((3, 20)), f"{ability} {strategy}")
    claim = findings.stages_forget(Cells(made, "by hand", 3))
    assert judged(claim) == "cannot tell"
    assert uncertain.from_seeds([0.0, 0.0]).below() == pytest.approx(0.5)  # ties count half


def test_a_scale_comes_from_the_metric_and_not_from_its_values():
    """Ratings that all lie below 1 are no rates."""
    rating, rate = seeded(np.full((1, 30), 0.9), best=10.0), seeded(np.full((1, 30), 0.9))
    assert rating.high > 1.0 >= rate.high


def test_one_seed_gets_no_verdict():
    made = {
        ("math", (("strategy", name),)): seeded([[float(i < n) for i in range(50)]], name)
        for name, n in (("multitask", 40), ("sequential", 5))
    }
    made |= {("code", setup): cell for (_, setup), cell in made.items()}
    (found,) = [f for f in findings.find(Cells(made, "by hand", 1)) if f.is_measured]
    assert found.verdict == "one run"
    assert found.numbers == "one run: multitask minus sequential, mean of math and code: +70.0 points"
    assert findings.rule_in_words([found], [found]).count("No findings are tested here") == 1


def test_holm_is_that_of_a_hand_worked_case():
    """.01, .04, .03, .005 of four: .0125, .0167, .025 and .05 are the borders; .03 > .025 ends it."""
    assert rule.holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert rule.holm([]) == []


def test_an_effect_is_judged_by_its_interval_and_the_smallest_that_matters():
    def of(value: float, error: float) -> str:
        effect = uncertain.published(value, error, "x")
        return judged(Claim("q", "c", "", rule.of_effect(effect), None, effect))

    assert of(5.0, 1.0) == "holds" and of(-5.0, 1.0) == "the opposite holds"
    assert of(0.3, 0.5) == "no effect that matters" and of(1.0, 0.2) == "no effect that matters"
    assert of(1.5, 0.5) == "cannot tell"  # surely above 0, and perhaps of no interest
    assert of(3.0, 3.0) == "cannot tell"


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


def test_the_papers_general_ability_is_saturated_early_and_of_its_mathematics_that_is_not_known():
    table = laws.table(laws.scores(cells.published("7b")))
    rows = {(row[0].split(",")[0], "own" in row[1].split()[1]): row for row in table.rows}
    assert len(rows) == len(table.rows) == 6  # against its own data and against the others', each ability
    low, high = map(float, re.findall(r"[-+][\d.]+", rows["math", True][5][0])[1:])
    assert low < 2 < high and rows["math", True][4] == "cannot tell"  # a doubling that brings 2 points is worth it
    assert rows["general", True][4].startswith("from k = 0.0") and abs(rows["general", True][5][1]) < 0.1
    assert all(re.search(r"\(.* to .*\)", row[5][0]) for row in table.rows)


def test_losses_make_laws_too():
    """Validation losses of three seeds at five parts, made by a known law."""
    rng = np.random.default_rng(0)
    found = [
        Result(
            f"{k}-{seed}",
            {"strategy": "single", "source": "math", "k": k, "seed": seed},
            "math",
            "i",
            1,
            True,
            "gsm8k",
            "math",
            "strict",
            True,
            0.5,
            0.4,
            0.6,
            100,
            1.0,
            1,
            0,
            float(0.5 + 0.4 * cells.number(k) ** -0.3 + 0.01 * rng.standard_normal()),
            "0",
            "{}",
            "",
        )
        for k in ("1/256", "1/64", "1/16", "1/4", "1")
        for seed in range(3)
    ]
    (row,) = laws.table(laws.losses(found, "7b")).rows
    assert row[:3] == ["math, validation loss", "its own data alone", "power"]
    assert row[5][1] == pytest.approx(0.4 * (2**-0.3 - 1), abs=0.02)


def test_single_against_mixed_and_one_source_on_the_others():
    """By hand: mathematics loses 10 points by mixing at k = 1 and gains 5 at 1/16; code data gives it 2."""
    scores = {
        ("single", "math", "1", ""): 0.6,
        ("single", "math", "1/16", ""): 0.3,
        ("mixed", "", "1", ""): 0.5,
        ("mixed", "", "1/16", ""): 0.35,
        ("single", "code", "1", ""): 0.22,
        ("single", "code", "1", "base"): 0.2,
    }
    axes = ("strategy", "source", "k", "stage")
    ours = Cells(
        {
            ("math", tuple(zip(axes, at, strict=True))): uncertain.published(value, 0.0, str(at))
            for at, value in scores.items()
        },
        "by hand",
        3,
    )
    table = conflict(ours, cells.published("7b"), "7b")
    assert [(row[1][0], row[4][0]) for row in table.rows] == [
        ("1/16", "+5.0 (5.0 to 5.0)"),
        ("1", "-10.0 (-10.0 to -10.0)"),
    ]
    assert all(row[5][1] < 0.001 for row in table.rows)
    assert [round(row[6][1], 4) for row in table.rows] == [-0.0293, -0.0157]  # the paper's 32.97 - 35.9, 47.53 - 49.1
    (given,) = [row for row in transfer(ours).rows if row[0] == "code"]
    assert (given[1][0], given[2][0]) == ("1", "+2.0 (2.0 to 2.0)")


def test_many_rows_are_adjusted_by_benjamini_and_hochberg():
    """By hand: .01, .02, .03, .5 of four → .04, .04, .04, .5; single runs stand aside."""
    shown = _adjusted([0.01, None, 0.02, 0.03, 0.5])
    assert [cell if cell == "–" else round(cell[1], 6) for cell in shown] == [0.04, "–", 0.04, 0.04, 0.5]


def test_leaving_nothing_out_finds_nothing():
    setups = [{"strategy": "mixed", "k": "1"}, {"strategy": "mixed", "k": "1", "without": "code,math"}]
    values = (np.random.default_rng(0).uniform(size=(3, 20)) < 0.5).astype(float)
    every = {
        (ability, tuple(sorted(setup.items()))): seeded(values, str(setup))
        for ability in ("math", "code")
        for setup in setups
    }
    (found,) = rule.judge([findings.ablation(cells.Cells(every, "here", 3))])
    assert found.verdict == "not measured" and "nothing was left out" in found.numbers


def test_full_data_is_the_most_that_was_measured():
    """By hand: at k = 4 mixing takes 8 points; at k = 1 it gave 10, on which the verdict must not rest."""

    def cell(value: float, **setup: str) -> tuple[tuple[str, tuple[tuple[str, str], ...]], Uncertain]:
        return ("math", tuple(sorted(setup.items()))), uncertain.published(value, 0.005, str(setup))

    some = Cells(
        dict(
            [
                cell(0.2, strategy="single", source="math", k="1"),
                cell(0.3, strategy="mixed", k="1"),
                cell(0.4, strategy="single", source="math", k="4"),
                cell(0.32, strategy="mixed", k="4"),
            ]
        ),
        "here",
        3,
    )
    found = {k: change.value for k, change in findings.mixed_minus_single(some)}
    assert found == {"1": pytest.approx(10), "4": pytest.approx(-8)}
    verdict = findings.mixing_hurts_with_much(some)
    assert judged(verdict) == "holds" and "at k = 4" in verdict.numbers


def trained(strategy: str, k: str, seed: int, loss: float, **more: str) -> Result:
    """What one experiment says of mathematics after its last stage."""
    labels = {"strategy": strategy, "k": k, "seed": seed, "size": "tiny", **more}
    return Result(
        f"{strategy}-{k}-{seed}",
        labels,
        "s",
        "id",
        1,
        True,
        "tiny_math",
        "math",
        "strict",
        True,
        0.5,
        0.4,
        0.6,
        100,
        1.0,
        10,
        0,
        loss,
        "0",
        "{}",
        "",
    )


def test_conflict_in_losses_is_paired_by_seed():
    """By hand: differences 0.1, 0.2, 0.3, so 0.2 ± 4.303 · 0.1/√3 (Student's t, two degrees of freedom)."""
    found = [trained("single", "4", seed, 1.0 + seed, source="math") for seed in range(3)]
    found += [trained("mixed", "4", seed, 1.1 + 1.1 * seed) for seed in range(3)]
    found += [trained("mixed", "4", 0, 9.0, setup="a"), trained("mixed", "1", 0, 1.0), trained("single", "1", 1, 1.0)]
    table = conflict_in_losses(found)
    ((ability, k, alone, mixed, change, p),) = table.rows  # at k = 1 no seed has both
    assert (ability, k[0], alone[1], mixed[1]) == ("math", "4", pytest.approx(2.0), pytest.approx(2.2))
    assert change[1] == pytest.approx(0.2) and p[1] == pytest.approx(2 * stats.t.sf(0.2 / (0.1 / 3**0.5), 2))
    low, high = map(float, re.findall(r"[-+][\d.]+", change[0])[1:])
    assert low == pytest.approx(0.2 - 4.303 * 0.1 / 3**0.5, abs=0.04)
    assert high == pytest.approx(0.2 + 4.303 * 0.1 / 3**0.5, abs=0.04)


@pytest.mark.parametrize(
    ("seeds", "questions", "level"), [(3, 150, 0.05), (5, 150, 0.05 / 11), (10, 80, 0.05), (10, 80, 0.05 / 11)]
)
def test_what_a_plan_detects_holds_by_the_rule_in_80_percent_of_simulations(seeds, questions, level):
    """Two set-ups whose rates vary between seeds by 3 points; answers to a third of the questions differ."""
    points, held, studies = power.planned(seeds, questions, 3.0, level), 0, 150
    for study in range(studies):
        rng = np.random.default_rng([study, seeds])
        hard, made = rng.choice([-0.28, 0.28], questions), []
        for sign in (-1, 1):
            rates = np.clip(0.5 + hard + sign * points / 200 + rng.normal(0, 0.03, (seeds, 1)), 0, 1)
            made.append(seeded(rng.uniform(size=(seeds, questions)) < rates, f"{study} {sign}"))
        held += rule.is_positive((made[1] - made[0]) * 100.0, rule.SMALLEST) <= level
    assert 0.68 <= held / studies <= 0.90  # 150 studies are uncertain by 0.07


def test_as_many_seeds_as_are_named_detect_a_difference():
    many = power.seeds_for(4.0, 200)
    assert power.planned(many, 200) <= 4.0 < power.planned(many - 1, 200)
    assert power.planned(1, 200) == np.inf
    assert power.seeds_for(2.1, 10) is None
    assert power.planned(1000, 10**6) > rule.SMALLEST  # half of the studies of such a difference find less


def test_seeds_that_all_agree_tell_nothing_of_another_seed():
    """Without questions: neither 0 in three seeds against 0, nor 5 against 0, alone or in a mean."""
    alike = uncertain.from_seeds([0.0, 0.0, 0.0])
    for other in (alike, uncertain.from_seeds([0.0, 0.0, 0.0]), uncertain.from_seeds([5.0, 5.0, 5.0])):
        change = other - alike
        assert not change.has_spread and (change.low, change.high) == (-np.inf, np.inf)
        assert judged(Claim("q", "c", "", rule.of_effect(change), change.runs, change)) == "cannot tell"
    varied = uncertain.from_seeds([1.0, 2.0, 4.0], task="other")
    assert varied.has_spread and not uncertain.mean([varied, uncertain.from_seeds([3.0] * 3, task="t")]).has_spread
    (row,) = conflict_in_losses(
        [trained("single", "1", seed, 1.0 + seed, source="math") for seed in range(2)]
        + [trained("mixed", "1", seed, 1.5 + seed) for seed in range(2)]
    ).rows
    assert "its spread is not known" in row[4][0] and row[5] == "–"


def test_one_shared_seed_is_said_to_be_too_few():
    apart = uncertain.from_seeds([1.0, 2.0, 4.0], (2, 3, 4)) - uncertain.from_seeds([1.0, 3.0, 2.0], (0, 1, 2))
    assert apart.restricted == "1 seed in common, too few to pair"


@pytest.mark.parametrize("sign", [1, -1])
def test_one_shared_seed_correlates_nothing(sign):
    """Two seeds each have a Cauchy error of scale 1/2; the scales of independent ones add, whatever seed 1 did."""
    change = uncertain.from_seeds([0.0, sign], (1, 2)) - uncertain.from_seeds([0.0, 1.0], (0, 1))
    reach = stats.cauchy.ppf(0.975)
    assert (change.low, change.high) == pytest.approx((change.value - reach, change.value + reach), rel=0.15)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_the_tails_of_few_seeds_are_students(seeds):
    """Whichever seeds lie high and low: the level that the first of eleven findings is tested at, and 5 %."""
    rng, missed = np.random.default_rng(0), {0.05: [], 0.05 / 11: []}
    for _ in range(40):
        values = rng.normal(size=seeds)
        found = uncertain.from_seeds(values.tolist())
        for level, ratios in missed.items():
            border = stats.t.ppf(1 - level / 2, seeds - 1) * values.std(ddof=1) / seeds**0.5
            ratios.append(2 * found.below(values.mean() - border) / level)
    spread = {level: float(np.std(ratios)) for level, ratios in missed.items()}
    assert spread[0.05] < 0.08 and spread[0.05 / 11] < 0.3
    assert all(np.mean(ratios) == pytest.approx(1, abs=0.2) for ratios in missed.values())


def test_a_claim_has_as_few_seeds_as_any_of_its_numbers():
    """Ten seeds of the last step and one of the first: one run."""
    rng = np.random.default_rng(0)
    made = {}
    for k, level in zip(findings.PARTS, (2, 3, 5, 6, 6.1), strict=True):
        shape = (1 if k == "1/256" else 10, 40)
        setup = tuple(sorted({"strategy": "single", "source": "general", "k": k}.items()))
        made["general", setup] = seeded(level + rng.normal(0, 0.1, shape), k, best=10.0)
    claim = findings.flattening(Cells(made, "by hand", 10))
    assert claim.runs == 1 and judged(claim) == "one run"


def test_the_difference_that_is_named_never_contradicts_the_verdict():
    """Of eleven findings: an effect that alone would hold is not told from 0, and the named one is larger."""
    for degrees, level in ((1, 0.05), (2, 0.05 / 11), (9, 0.01), (np.inf, 0.05)):
        found = stats.nct.sf(stats.t.ppf(1 - level / 2, degrees), degrees, power.detectable(degrees, level))
        assert np.isnan(found) or found == pytest.approx(0.8, abs=0.005)
    assert power.detectable(np.inf) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), abs=1e-3)
    effect = uncertain.published(5.0, 2.2, "x")
    claims = [Claim("q", f"c{i}", "", rule.of_effect(effect), None, effect) for i in range(11)]
    for finding in rule.judge(claims):
        (named,) = re.findall(r"difference of ([\d.]+) points .* at the level of one of 11 findings", finding.numbers)
        wanted = (stats.norm.ppf(1 - 0.05 / 22) + stats.norm.ppf(0.8)) * 2.2
        assert finding.verdict == "cannot tell" and 5.0 < float(named) == pytest.approx(wanted, rel=0.1)
    small = uncertain.published(1.5, 0.5, "y")
    (finding,) = rule.judge([Claim("q", "c", "", rule.of_effect(small), None, small)])
    assert "it differs from 0, and whether it is more than 2 points is not clear" in finding.numbers


def test_claims_with_one_name_are_judged_each_by_itself():
    """Two values of an own axis have the same claim: the one that is shown does not make the other hold."""
    some = [uncertain.published(value, 1.0, str(value)) for value in (9.0, 0.5)]
    found = rule.judge([Claim("q", "the same", "", rule.of_effect(each), None, each) for each in some])
    assert [finding.verdict for finding in found] == ["holds", "cannot tell"]


def test_a_replay_costs_nothing_only_of_a_gain_that_is_shown():
    def of(gain: float | None) -> str:
        levels = {("mixed_sequential", "0", ""): 6.0, ("dmt", "1/256", ""): 6.0}
        if gain is not None:
            levels["mixed_sequential", "0", "base"] = 6.0 - gain
        return judged(
            findings.replay_costs_nothing(
                Cells(
                    {
                        (
                            "general",
                            tuple(sorted(zip(("strategy", "k", "stage"), labels, strict=True))),
                        ): uncertain.published(value, 0.01, str(labels))
                        for labels, value in levels.items()
                    },
                    "",
                    3,
                )
            )
        )

    assert [of(gain) for gain in (4.0, 0.0, -1.0, None)] == ["holds", "cannot tell", "cannot tell", "cannot tell"]


def test_a_law_carries_the_scores_own_doubt_and_stays_below_the_best():
    """Scores that lie on a line of log k exactly, 20 to 100 %, each with a standard error of 4 points."""
    made = {}
    for i, k in enumerate(findings.PARTS):
        setup = tuple(sorted({"strategy": "single", "source": "math", "k": k}.items()))
        made["math", setup] = uncertain.published(0.2 + 0.2 * i, 0.04, k)
    (curve,) = laws.scores(Cells(made, "by hand", 3))
    fit = fits.fit(curve.parts, curve.values, drawn=curve.drawn, ends=curve.ends)
    low, high = fit.band(np.array([1 / 16]))
    assert 0.02 < high[0] - low[0] < 0.16
    assert fit.at(np.array([4.0]))[0] <= 1.0 and fit.curves(np.array([4.0])).max() <= 1.0
    (row,) = laws.table([curve]).rows
    change, low, high = map(float, re.findall(r"[-+][\d.]+", row[5][0]))
    assert low <= change <= high and high <= 100 - 100 * fit.curves(np.array([1.0])).min()
    (row,) = laws.table([dataclasses.replace(curve, runs=1)]).rows
    assert row[4] == "one run"


def test_a_rating_has_its_pseudo_question_at_the_least_rating():
    """One question rated 1, with the pseudo-questions at 1 and at 10: no draw lies below 1."""
    score = Verdicts("x", "t", None, ("a",), np.ones((1, 1)), np.ones((1, 1)), 10.0, worst=cells.worst(10.0))
    draws = uncertain.of(score, best=10.0, worst=1.0).draws
    assert draws.min() >= 1.0 and draws.max() > 5.0


def test_a_study_knows_how_many_findings_are_judged_together():
    """Multitask and sequential: one of the paper's; learning rates alone: a card for each ability and the mean."""
    setups = [{"strategy": "multitask"}, {"strategy": "sequential"}]
    assert family.size(setups, ["math", "code"]) == 1
    twice = [setup | {"learning_rate": rate} for setup in setups for rate in (1e-5, 2e-5)]
    assert family.size(twice, ["math", "code"]) == 2
    assert family.size([{"learning_rate": rate} for rate in (1e-5, 2e-5)], ["math", "code"]) == 3
    assert power.planned(3, 100, level=0.05 / 11) > power.planned(3, 100)
