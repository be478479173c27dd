"""Cache, mixture, packing and loading: every row accounted for, every batch by its number."""

import gzip
import json
import random

import numpy as np
import pytest
from test_sources import write_lines

from sftmix_jax.data import cache, loader, mixture, packing
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.loader import BatchConfig, LoaderConfig
from sftmix_jax.data.mixture import Pool, Share
from sftmix_jax.data.sources import Source
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.experiment.stages import TINY
from sftmix_jax.machine import ranges
from sftmix_jax.machine.errors import UserError
from tests.campaigns import cache_faults


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat("chatml", Tokenizer(str(TINY)))


@pytest.fixture(scope="module")
def examples(chat):
    return {name: cache.tokenized(name, Source(f"tiny:{name},rows=300"), chat) for name in ("math", "code", "general")}


def plan_of(examples, shares, batch=None, validation_rows=None, **rest):
    settings = {"epochs": 2, "budget": None, "unit": "tokens", "steps": None, "seed": 3} | rest
    return loader.make_plan(examples, shares, batch or BatchConfig(4, 160), validation_rows or {}, **settings)


def test_files_of_a_domain_that_hold_the_same_rows_are_said(chat, tmp_path):
    """Also packed or in another layout; two files that share some rows are none."""
    rows = [{"prompt": "1+1?", "response": "2"}, {"prompt": "2+2?", "response": "4"}]
    write_lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "c.json").write_text(json.dumps(rows))
    write_lines(tmp_path / "d.jsonl", [*rows, *rows])
    write_lines(tmp_path / "e.jsonl", [rows[1], rows[0]])
    write_lines(tmp_path / "f.jsonl", [{**row, "weight": 0.5} for row in rows])
    found = cache.tokenized("math", Source(str(tmp_path)), chat)
    names = [str(tmp_path / name) for name in ("b.jsonl.gz", "c.json", "a.jsonl")]
    assert found.rows == 14 and found.notices == [
        "{}, {} and {} hold the same 2 rows, which therefore count 3 times; "
        "leave all but one of these files out".format(*names)
    ]


ALL = {"math": Share(fraction=1.0), "code": Share(fraction=0.5)}


def test_lengths_count_what_a_plain_loop_counts(examples):
    for length in (20, 64, 1000):
        kept, trained = examples["math"].lengths(length)
        for i in range(0, 300, 7):
            tokens, mask = examples["math"].example(i, length)
            assert (kept[i], trained[i]) == (len(tokens), mask[1:].sum())


def test_a_second_start_tokenises_nothing(examples, chat, monkeypatch):
    monkeypatch.setattr(cache, "_build", lambda *a: pytest.fail("tokenised again"))
    again = cache.tokenized("math", Source("tiny:math,rows=300"), chat)
    assert isinstance(again.tokens, np.memmap)
    np.testing.assert_array_equal(again.tokens, examples["math"].tokens)


@pytest.fixture
def own_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SFTMIX_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("harm", [*cache_faults.HARMS[:-8:4], *cache_faults.HARMS[-8:]])
def test_a_damaged_cache_is_made_again_and_reported(own_cache_folder, chat, capsys, harm):
    source = Source("tiny:math,rows=40", bad_rows="skip")
    cache.tokenized("general", Source("tiny:general,rows=10"), chat)
    wanted = cache.tokenized("math", source, chat)
    arrays = {name: np.array(value) for name, value in vars(wanted).items() if isinstance(value, np.ndarray)}
    harm(own_cache_folder / "tokens" / wanted.fingerprint, random.Random(5))
    again = cache.tokenized("math", source, chat)
    for name, value in arrays.items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert (again.rows, again.skipped, again.skipped_where) == (wanted.rows, wanted.skipped, wanted.skipped_where)
    said = capsys.readouterr().err
    assert said.count("token cache") == (harm is not cache_faults.faults.folder_missing)
    if (own_cache_folder / "tokens").is_dir():
        sound = cache.tokenized("math", source, chat)
        assert not capsys.readouterr().err and len(sound) == len(wanted)


def test_refused_and_skipped_rows(tmp_path, chat):
    path = write_lines(tmp_path / "rows.jsonl", [{"question": "q", "answer": "a"}, {"question": "q", "answer": ""}])
    with pytest.raises(UserError, match=r"rows\.jsonl:2: an empty answer.*bad_rows=skip"):
        cache.tokenized("math", Source(path), chat)
    kept = cache.tokenized("math", Source(path, bad_rows="skip"), chat)
    assert (len(kept), kept.rows, kept.skipped) == (1, 2, {"an empty answer": 1})


def test_subsets_are_exact_nested_and_seeded():
    pool = Pool(np.full(1000, 10), np.full(1000, 5))
    taken = {k: set(mixture.selected("math", pool, Share(fraction=k), 0)) for k in (1 / 64, 1 / 16, 1 / 4, 1.0)}
    assert [len(rows) for rows in taken.values()] == [15, 62, 250, 1000]
    assert taken[1 / 64] < taken[1 / 16] < taken[1 / 4] < taken[1.0]
    assert set(mixture.selected("math", pool, Share(count=62), 0)) == taken[1 / 16]
    assert set(mixture.selected("math", pool, Share(fraction=1 / 16), 1)) != taken[1 / 16]


def test_rows_whose_answer_was_cut_off_do_not_count_as_taken():
    trained = np.where(np.arange(100) % 4 == 0, 0, 5)
    pool = Pool(np.full(100, 10), trained, validation_rows=20)
    few, more = (mixture.selected("math", pool, Share(count=n), 0) for n in (15, 40))
    assert (len(few), len(more)) == (15, 40) and set(few) < set(more)
    assert (trained[more] > 0).all()
    assert len(mixture.selected("math", pool, Share(fraction=0.25), 0)) == 25
    usable = int((trained[mixture.shuffled("math", 100, 0)[:80]] > 0).sum())
    assert len(mixture.selected("math", pool, Share(fraction=1.0), 0)) == usable
    with pytest.raises(UserError, match=rf"asks for 80 rows, there are {usable} .*have no answer within batch.seq_len"):
        mixture.selected("math", pool, Share(count=80), 0)


def test_ratios_take_the_rows_of_exact_arithmetic():
    """All p/q with q ≤ 300, of every multiple of q up to 600 rows, one row more and one less."""
    for q in range(1, 301):
        for p in range(1, q + 1):
            for whole in range(q, 601, q):
                for rows in (whole - 1, whole, whole + 1):
                    assert mixture.rows_of(p / q, rows) == p * rows // q, (p, q, rows)


@pytest.mark.parametrize(
    ("fraction", "rows", "wanted"),
    [
        (0.29, 100, 29),
        (0.07, 100, 7),
        (0.57, 1000, 570),
        (1 / 49, 49, 1),
        (1 / 3, 3, 1),
        (1 / 256, 256, 1),
        (1 / 256, 255, 0),
        (0.1 * 3, 10, 3),
        (0.29 * 0.1, 1000, 29),
        (1 / 3 / 7, 21, 1),
        (0.289999, 100, 28),
        (0.999999, 1000, 999),
        (0.7, 10_000_000, 7_000_000),
    ],
)
def test_decimals_take_the_rows_that_a_person_expects(fraction, rows, wanted):
    assert mixture.rows_of(fraction, rows) == wanted
    if wanted and rows <= 1000:
        pool = Pool(np.full(rows, 3), np.ones(rows, int))
        assert len(mixture.selected("math", pool, Share(fraction=fraction), 0)) == wanted


@pytest.mark.parametrize("rows", [3, 7, 49, 200, 255, 999])
def test_the_fraction_that_an_error_names_works(rows):
    pool = Pool(np.full(rows, 3), np.ones(rows, int))
    with pytest.raises(
        UserError, match=rf"1/1000 of {rows} rows .*1/{rows} \((.*)\), and 1/1000 needs at least 1000"
    ) as e:
        mixture.selected("math", pool, Share(fraction=0.001), 0)
    named = float(str(e.value).partition("(")[2].partition(")")[0])
    assert len(mixture.selected("math", pool, Share(fraction=named), 0)) == 1
    larger = Pool(np.full(1000, 3), np.ones(1000, int))
    assert len(mixture.selected("math", larger, Share(fraction=0.001), 0)) == 1


def test_the_papers_subsets_have_the_papers_sizes():
    sizes = {"math": 110_142, "code": 20_022, "general": 86_060}
    found = {
        name: len(mixture.selected(name, Pool(np.ones(n), np.ones(n)), Share(fraction=1 / 256), 0))
        for name, n in sizes.items()
    }
    assert found == {"math": 430, "code": 78, "general": 336}


def test_held_out_rows_are_in_no_share():
    pool = Pool(np.full(100, 10), np.full(100, 5), validation_rows=8)
    selected = mixture.selected("math", pool, Share(fraction=1.0), 0)
    assert len(selected) == 92 and not set(mixture.validation_examples("math", pool, 0)) & set(selected)


def test_each_epoch_holds_every_row_once_in_another_order():
    pools = {name: Pool(np.full(n, 10), np.full(n, 5)) for name, n in (("math", 50), ("code", 30))}
    shares = {name: Share(fraction=1.0) for name in pools}
    order = mixture.order(pools, shares, epochs=3, budget=None, unit="tokens", seed=0)
    epochs = np.stack([order.domains * 1000 + order.examples]).reshape(3, 80)
    assert all(sorted(epoch) == sorted([*range(50), *range(1000, 1030)]) for epoch in epochs)
    assert not (epochs[0] == epochs[1]).all() and not (epochs[1] == epochs[2]).all()


@pytest.mark.parametrize("unit", mixture.UNITS)
def test_weights_are_met_in_their_unit(unit):
    rng = np.random.default_rng(0)
    pools = {
        "math": Pool(rng.integers(50, 150, 400), rng.integers(10, 40, 400)),
        "code": Pool(rng.integers(200, 400, 300), rng.integers(100, 200, 300)),
    }
    shares = {"math": Share(weight=3.0), "code": Share(weight=1.0)}
    order = mixture.order(pools, shares, epochs=1, budget=60_000, unit=unit, seed=0)
    amounts = {
        name: pools[name].amounts(unit)[order.examples[order.domains == i]].sum() for i, name in enumerate(pools)
    }
    assert abs(amounts["math"] / sum(amounts.values()) - 0.75) < 0.03
    assert 60_000 <= sum(amounts.values()) < 60_500


def long_tailed(rows: dict[str, int], seed: int) -> dict[str, Pool]:
    """Log-normal lengths, the longest cut at 2048 and many times the mean."""
    rng, pools = np.random.default_rng(seed), {}
    for i, (name, n) in enumerate(rows.items()):
        lengths = np.clip(rng.lognormal(4.5 + 0.4 * i, 1.0, n).astype(int) + 8, 8, 2048)
        pools[name] = Pool(lengths, np.maximum(1, (lengths * rng.uniform(0.1, 0.9, n)).astype(int)))
    return pools


@pytest.mark.parametrize("unit", mixture.UNITS)
@pytest.mark.parametrize("weights", [(1, 1, 256), (3, 1, 1000)])
def test_small_shares_by_weight_are_within_a_percent(unit, weights):
    """Of 1/258 and 3/1004, for budgets in which the share is due some 600 rows."""
    pools = long_tailed({"math": 900, "code": 700, "general": 9000}, seed=sum(weights))
    shares = {name: Share(weight=weight) for name, weight in zip(pools, weights, strict=True)}
    due = weights[0] / sum(weights)
    budget = int(600 * pools["math"].amounts(unit).mean() / due)
    order = mixture.order(pools, shares, epochs=1, budget=budget, unit=unit, seed=1)
    taken = [pools[n].amounts(unit)[order.examples[order.domains == i]].sum() for i, n in enumerate(pools)]
    assert taken[0] / sum(taken) == pytest.approx(due, rel=0.01)
    assert budget <= sum(taken) < budget + 2048


@pytest.mark.parametrize("unit", mixture.UNITS)
def test_at_every_point_a_domain_has_had_its_share_to_within_half_a_row(unit):
    pools = long_tailed({"math": 40, "code": 25, "general": 300}, seed=7)
    weights = np.array([0.3, 1.7, 20.0])
    shares = {name: Share(weight=float(weight)) for name, weight in zip(pools, weights, strict=True)}
    order = mixture.order(pools, shares, epochs=1, budget=3000 if unit == "examples" else 300_000, unit=unit, seed=0)
    sizes = [pools[name].amounts(unit) for name in pools]
    part, largest = weights / weights.sum(), np.array([own.max() for own in sizes])
    each = np.zeros((len(order.domains), 3))
    for i, own in enumerate(sizes):
        mine = order.domains == i
        each[mine, i] = own[order.examples[mine]]
    had = np.cumsum(each, axis=0)
    due = had.sum(axis=1, keepdims=True) * part
    assert (np.abs(had - due) <= largest / 2 + part * largest.sum() / 2 + 1e-6).all()


def test_a_domain_of_one_row_is_drawn_again_and_a_share_of_no_row_is_refused():
    pools = {"one": Pool(np.array([40]), np.array([20])), "many": Pool(np.full(500, 40), np.full(500, 20))}
    shares = {"one": Share(weight=1.0), "many": Share(weight=3.0)}
    order = mixture.order(pools, shares, epochs=1, budget=40_000, unit="tokens", seed=0)
    assert (order.domains == 0).sum() == 250
    # 40 tokens a row: of 3 to 1, half a row of 'one' is due at 80 tokens, and with 1 to 4,095 at 81,920
    with pytest.raises(UserError, match=r"'one' by weight, 1/4 of 1 tokens, is no row .* in a budget of 160 tokens"):
        mixture.order(pools, shares, epochs=1, budget=1, unit="tokens", seed=0)
    shares = {"one": Share(weight=1.0), "many": Share(weight=4095.0)}
    for budget, due in ((80_000, 0), (83_000, 1)):
        end = ("places", budget // 40 * 39)
        cut = mixture.order(pools, shares, epochs=1, budget=10**6, unit="tokens", seed=0, end=end)
        assert (cut.domains == 0).sum() == due
        for how in ({"budget": budget}, {"budget": None, "end": end}):
            if due:
                assert (mixture.order(pools, shares, epochs=1, unit="tokens", seed=0, **how).domains == 0).sum() == 1
                continue
            with pytest.raises(UserError, match=r"'one' by weight, 1/4096 of .* in a budget of 163840 tokens"):
                mixture.order(pools, shares, epochs=1, unit="tokens", seed=0, **how)


@pytest.mark.parametrize("kind", ["fraction", "weight"])
def test_a_longer_order_begins_with_a_shorter_one(kind):
    pools = long_tailed({"math": 70, "code": 33}, seed=1)
    shares = {"math": Share(**{kind: 1.0}), "code": Share(**{kind: 0.5})}

    def order(places):
        end = ("places", places)
        return mixture.order(pools, shares, epochs=1, budget=None, unit="tokens", seed=0, end=end)

    short, long = order(5_000), order(500_000)
    count = len(short.examples)
    assert 0 < count < len(long.examples) / 20
    np.testing.assert_array_equal(short.examples, long.examples[:count])
    np.testing.assert_array_equal(short.domains, long.domains[:count])


@pytest.mark.parametrize("packing_name", packing.PACKINGS)
@pytest.mark.parametrize("rows", [1, 7, 300, 2000])
def test_rows_that_are_asked_for_hold_the_first_examples(packing_name, rows):
    lengths = np.random.default_rng(rows).integers(1, 512, 10_000)
    packed = packing.pack(lengths, 512, packing_name, 0, rows)
    assert packed.num_rows == rows
    assert np.add.reduceat(lengths[packed.members], packed.starts[:-1]).max() <= 512
    assert sorted(packed.members) == list(range(len(packed.members)))


@pytest.mark.parametrize("packing_name", packing.PACKINGS)
def test_every_example_is_packed_once_and_fits(packing_name):
    lengths = np.random.default_rng(0).integers(1, 512, 10_000)
    packed = packing.pack(lengths, 512, packing_name, 0)
    assert sorted(packed.members) == list(range(10_000))
    sums = np.add.reduceat(lengths[packed.members], packed.starts[:-1])
    assert sums.max() <= 512
    if packing_name == "best_fit":
        assert sums.sum() / (512 * packed.num_rows) > 0.98


def test_batches_hold_exactly_the_rows_with_their_loss_weights(examples):
    plan, _ = plan_of(examples, ALL, epochs=1)
    seen = {"math": [], "code": []}
    for step in range(plan.num_steps):
        batch = plan.batch(step)
        for row in range(4):
            for segment in range(1, batch["segment_ids"][row].max() + 1):
                at = batch["segment_ids"][row] == segment
                tokens, targets = batch["tokens"][row, at], batch["targets"][row, at]
                np.testing.assert_array_equal(tokens[1:], targets[:-1])
                np.testing.assert_array_equal(batch["positions"][row, at], np.arange(at.sum()))
                name = plan.names[batch["domain_ids"][row, at][0]]
                seen[name].append((tokens.tolist(), targets[-1], batch["loss_weights"][row, at].tolist()))
        empty = batch["segment_ids"] == 0
        assert not batch["loss_weights"][empty].any() and not batch["tokens"][empty].any()
    for name, found in seen.items():
        wanted = []
        for i in mixture.selected(name, Pool(*examples[name].lengths(160)), ALL[name], 3):
            tokens, mask = examples[name].example(i, 160)
            wanted.append((tokens[:-1].tolist(), tokens[-1], mask[1:].tolist()))
        assert sorted(found, key=str) == sorted(wanted, key=str)


def test_the_ledger_counts_what_the_batches_hold(examples):
    plan, pools = plan_of(examples, ALL, validation_rows={"math": 10})
    for stop in (1, plan.num_steps // 2, plan.num_steps):
        batches = [plan.batch(step) for step in range(stop)]
        ledger = plan.ledger(stop)
        for i, name in enumerate(plan.names):
            mine = [(b["domain_ids"] == i) & (b["segment_ids"] > 0) for b in batches]
            trained = sum(int(b["loss_weights"][m].sum()) for b, m in zip(batches, mine, strict=True))
            starts = sum(int((b["positions"][m] == 0).sum()) for b, m in zip(batches, mine, strict=True))
            assert (ledger[name]["trained_tokens"], ledger[name]["examples"]) == (trained, starts)
    for account in plan.rows_account(pools, 3).values():
        parts = {k: v for k, v in account.items() if k not in ("stored", "of them truncated", "skipped")}
        assert sum(parts.values()) + sum(account["skipped"].values()) == account["stored"]


@pytest.mark.parametrize("too_long", ["truncate", "skip"])
def test_long_rows_are_cut_or_left_out_and_counted(examples, too_long):
    plan, pools = plan_of(examples, {"math": Share(fraction=1.0)}, BatchConfig(4, 60, too_long=too_long))
    account = plan.rows_account(pools, 3)["math"]
    longer = int((np.diff(examples["math"].offsets) > 60).sum())
    if too_long == "skip":
        assert (account["of them truncated"], account["without an answer within the length"]) == (0, longer)
    else:
        assert account["of them truncated"] + account["without an answer within the length"] == longer
    assert sum(v for k, v in account.items() if k not in ("stored", "of them truncated", "skipped")) == 300


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_read_parts_of_the_same_global_batches(examples, processes):
    plan, _ = plan_of(examples, ALL)
    parts = [loader.process_part(4, index, processes) for index in range(processes)]
    for step in (0, plan.num_steps - 1):
        for key, whole in plan.batch(step).items():
            np.testing.assert_array_equal(np.concatenate([plan.batch(step, part)[key] for part in parts]), whole)


@pytest.mark.parametrize("config", [LoaderConfig(1, 1), LoaderConfig(4, 16), LoaderConfig(2, 4, workers=2)])
def test_the_loader_gives_batches_in_order_from_any_position(examples, config):
    plan, _ = plan_of(examples, ALL)
    loaded = list(loader.batches(plan, config, 5, plan.num_steps))
    assert len(loaded) == plan.num_steps - 5
    for step, batch in enumerate(loaded, 5):
        for key, wanted in plan.batch(step).items():
            np.testing.assert_array_equal(batch[key], wanted)


@pytest.mark.parametrize("packing_name", packing.PACKINGS)
@pytest.mark.parametrize("steps", [1, 3, 400])
def test_steps_decide_how_much_data_there_is(examples, steps, packing_name):
    for shares in (ALL, {"math": Share(weight=1.0), "code": Share(weight=1.0)}):
        batch = BatchConfig(4, 160, packing=packing_name)
        plan, _ = plan_of(examples, shares, batch, steps=steps)
        assert plan.num_steps == steps
        assert sum(account["examples"] for account in plan.ledger(steps).values()) == len(plan.packed.members)


def test_steps_beyond_the_data_are_planned_once(examples, monkeypatch):
    calls = []
    for module, name in ((mixture, "order"), (packing, "pack")):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, f=function, **k: calls.append(f) or f(*a, **k))
    plan, _ = plan_of(examples, ALL, steps=1600)
    assert plan.num_steps == 1600 and len(calls) == 2


def test_the_order_of_shares_by_weight_and_steps_keeps_their_unit(examples):
    shares = {"math": Share(weight=1.0), "code": Share(weight=3.0)}
    for unit, wanted in (("examples", "examples"), ("tokens", "tokens"), ("trained_tokens", "trained_tokens")):
        plan, _ = plan_of(examples, shares, steps=150, unit=unit)
        ledger = plan.ledger(150)
        assert ledger["code"][wanted] / ledger["math"][wanted] == pytest.approx(3, rel=0.02)


def test_rows_that_the_steps_leave_out_are_not_counted_as_used(examples):
    plan, pools = plan_of(examples, {"math": Share(fraction=1.0)}, steps=3)
    account = plan.rows_account(pools, 3)["math"]
    assert account["used"] == plan.ledger(3)["math"]["examples"] < account["stored"] / 2
    parts = {k: v for k, v in account.items() if k not in ("stored", "of them truncated", "skipped")}
    assert sum(parts.values()) + sum(account["skipped"].values()) == account["stored"]


@pytest.mark.parametrize(
    ("shares", "rest", "said"),
    [
        ({"math": Share(weight=1.0), "code": Share(fraction=0.5)}, {}, "all by weight or none"),
        ({"math": Share(weight=1.0)}, {}, "need a budget"),
        ({"math": Share(count=301)}, {}, "asks for 301 rows, there are 300"),
        ({"math": Share(fraction=0.001)}, {}, "no row at all"),
        ({"math": Share(fraction=1.0)}, {"batch": BatchConfig(4, 5)}, "no row has a trained token"),
        ({"math": Share(fraction=1.0)}, {"validation_rows": {"math": 300}}, "leaves nothing"),
    ],
)
def test_impossible_shares_say_why(examples, shares, rest, said):
    with pytest.raises(UserError, match=said):
        plan_of(examples, shares, **rest)


@pytest.mark.parametrize(
    "share",
    [
        Share(),
        Share(fraction=1.5),
        Share(fraction=0.0),
        Share(count=0),
        Share(weight=-1.0),
        Share(fraction=0.5, count=3),
    ],
)
def test_shares_out_of_range_are_named(share):
    with pytest.raises(UserError, match="here"):
        ranges.check(share, "here")
