"""Pictures of a workdir."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from etils import epath

from sftmix_jax.analysis.runs import Score

_MARKS = ("o", "s", "^", "D", "v", "P")


def draw_abilities(scores: Sequence[Score], file: epath.Path) -> None:
    """Each task's first metric over the stages, a panel an experiment; readable without colour."""
    experiments = list(dict.fromkeys(score.experiment for score in scores))
    tasks = list(dict.fromkeys(score.task for score in scores))
    figure, axes = plt.subplots(1, len(experiments), figsize=(5.2 * len(experiments), 3.8), sharey=True, squeeze=False)
    for panel, experiment in zip(axes[0], experiments, strict=True):
        stages: dict[int, str] = {}
        for mark, task in zip(_MARKS, tasks, strict=False):
            points = [s for s in scores if s.experiment == experiment and s.task == task and s.primary]
            points.sort(key=lambda s: s.position)
            stages |= {s.position: s.stage for s in points}
            top = points[0].best
            heights = [100 * s.value / top for s in points]
            errors = [
                [100 * (s.value - s.low) / top for s in points], [100 * (s.high - s.value) / top for s in points]
            ]  # fmt: skip
            label = f"{task}, {points[0].metric}"
            panel.errorbar([s.position for s in points], heights, errors, marker=mark, capsize=3, label=label)
        panel.set_title(experiment)
        panel.set_xticks(sorted(stages), [stages[p] for p in sorted(stages)])
        panel.set_xlim(min(stages) - 0.2, max(stages) + 0.2)
        panel.set_ylim(0, 103)
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("score, % of the best possible")
    axes[0][0].legend(frameon=False)
    figure.suptitle("Abilities after each stage, with 95 % intervals", y=0.99)
    figure.tight_layout()
    with file.open("wb") as stream:
        figure.savefig(stream, dpi=130, format="png")
    plt.close(figure)
