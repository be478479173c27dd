"""Errors that speak to the user: what, where, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class UserError(Exception):
    """Input that cannot be used; the message names the place and the remedy."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one in any letter case, or all of them."""
    known = sorted(known)
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{by_lower[near[0]]}'?"
    return f"known: {', '.join(known) or 'none'}"


def text_of(error: BaseException) -> str:
    """What an exception says; empty if it says nothing, or fails to."""
    try:
        return str(error)
    except Exception:  # a user's class
        return ""


def nearest(name: str, known: Mapping[str, str]) -> str:
    """As `did_you_mean`, where too many are known to print: the three nearest by what they are shown as, the count."""
    near = [f"'{known[each]}'" for each in difflib.get_close_matches(name[:300], known, n=3, cutoff=0)]
    if not near:
        return "known: none"
    listed = " or ".join(filter(None, [", ".join(near[:-1]), near[-1]]))
    return f"did you mean {listed}? ({len(known):,} known)"
