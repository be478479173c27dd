"""Time to plan a stage, and how close shares by weight come to what was asked.

python benchmarks/planning.py [--steps 1600] [--rows 500]

Prints one line per measurement. To compare two commits, run it with PYTHONPATH set to each checkout in turn.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from sftmix_jax.data import loader, mixture
from sftmix_jax.data.cache import Examples
from sftmix_jax.data.loader import BatchConfig
from sftmix_jax.data.mixture import Pool, Share

WEIGHTS = {"1/258": (1, 1, 256), "3/1004": (3, 1, 1000)}
DUE = 600  # rows that the small share is due


def examples(rows: int, seed: int) -> Examples:
    """Log-normal lengths around 100 tokens, half of each trained on."""
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *np.clip(rng.lognormal(4.3, 0.8, rows), 8, 2048).astype(int)])
    tokens = np.zeros(offsets[-1], np.uint16)
    weights = np.ones(offsets[-1], np.float32)
    return Examples("", "", tokens, weights, offsets, rows, {}, [], {}, [])


def planning_time(rows: int, steps: int, kind: str) -> float:
    """Seconds to plan `steps` batches of two domains with `rows` rows in all."""
    domains = {"math": examples(rows // 2, 0), "general": examples(rows - rows // 2, 1)}
    shares = {name: Share(**{kind: 1.0}) for name in domains}
    begin = time.perf_counter()
    plan, _ = loader.make_plan(
        domains, shares, BatchConfig(16, 2048), {}, epochs=3, budget=None, unit="tokens", steps=steps, seed=0
    )
    assert plan.num_steps >= steps
    return time.perf_counter() - begin


def worst_share(weights: tuple[int, ...], unit: str, seeds: int) -> float:
    """The largest relative error of the first share over some seeds, with log-normal lengths up to 2048."""
    errors = []
    for seed in range(seeds):
        rng, pools = np.random.default_rng(seed), {}
        for i, rows in enumerate((900, 700, 9000)):
            lengths = np.clip(rng.lognormal(4.5 + 0.4 * i, 1.0, rows).astype(int) + 8, 8, 2048)
            pools[str(i)] = Pool(lengths, np.maximum(1, (lengths * rng.uniform(0.1, 0.9, rows)).astype(int)))
        shares = {name: Share(weight=float(weight)) for name, weight in zip(pools, weights, strict=True)}
        due = weights[0] / sum(weights)
        budget = int(DUE * pools["0"].amounts(unit).mean() / due)
        order = mixture.order(pools, shares, epochs=1, budget=budget, unit=unit, seed=seed)
        taken = [pools[n].amounts(unit)[order.examples[order.domains == i]].sum() for i, n in enumerate(pools)]
        errors.append(taken[0] / sum(taken) / due - 1)
    return max(errors, key=abs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for kind in ("fraction", "weight"):
        seconds = planning_time(options.rows, options.steps, kind)
        print(
            f"plan {options.steps:,} steps of 16 × 2048 from {options.rows} rows by {kind}: {seconds:.2f} s", flush=True
        )
    for name, weights in WEIGHTS.items():
        for unit in mixture.UNITS:
            worst = worst_share(weights, unit, options.seeds)
            print(f"share {name} in {unit}: {worst:+.2%} at most, {options.seeds} seeds, {DUE} rows due", flush=True)


if __name__ == "__main__":
    main()
