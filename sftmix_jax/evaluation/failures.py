"""Why answers failed, counted by kind, and whether that says more about the set-up than about the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

# Kinds of failure that need not be the model's fault, and what to look at.
_TECHNICAL = {
    "SyntaxError": "the answers are no Python as they are read; --show prints what was run",
    "NameError": "the answers use names that they do not define: is a part of the answer or of the prompt missing?",
    "missing module": "the answers import packages that the sandbox does not have",
    **dict.fromkeys(
        ("PermissionError", "FileNotFoundError", "OSError"),
        "the answers use files, processes or sockets, which the sandbox refuses",
    ),
    "not a plain value": "the answers' values cannot cross to the tests",
    "timed out": "is the machine busy, or too slow for the time limit?",
    "memory": "the answers need more memory than the sandbox gives",
    "output": "the answers return more than the sandbox passes on",
    "no reply": "the answers' processes wrote something else than replies",
    "killed": "the answers' processes were killed",
    "exited": "the answers' processes ended before they answered",
    "no answer": "the responses are empty",
}


def count(reasons: Iterable[str]) -> dict[str, int]:
    """Kind of failure → how many samples, the most frequent first. A reason is `kind: detail`, "" for a success."""
    return dict(Counter(reason.partition(":")[0] for reason in reasons if reason).most_common())


def warning(counts: Mapping[str, int]) -> str:
    """What to look at where most failures have one technical reason, else ""."""
    kind = max(counts, key=lambda name: counts[name], default="")
    total = sum(counts.values())
    if kind not in _TECHNICAL or 2 * counts[kind] <= total:
        return ""
    return f"{counts[kind]} of {total} failures are '{kind}': {_TECHNICAL[kind]}"
