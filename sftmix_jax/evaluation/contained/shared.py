"""Mutable objects that the answer and the tests both hold: what one side changes, the other one sees.

Both processes have the same list of such objects. Each tells the other which it still refers to, so that the list holds
only those that an answer keeps after a call and the tests keep, too: for most answers there are none.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import wire  # type: ignore[import-not-found]


def _references(objects: list[Any], place: int) -> int:
    return sys.getrefcount(objects[place])


_HERE = _references([[]], 0)  # of an object that stands in the list alone


def retained(objects: list[Any]) -> list[int]:
    """The places of those objects that something else than `objects` refers to, directly or through another one.

    The caller must not refer to them otherwise.
    """
    if not objects:
        return []
    places = {id(each): i for i, each in enumerate(objects)}
    held = [[places[id(r)] for r in gc.get_referents(each) if id(r) in places] for each in objects]
    inside = Counter(place for places_of_one in held for place in places_of_one)
    waiting = [i for i in range(len(objects)) if _references(objects, i) > _HERE + inside[i]]
    found = set(waiting)
    while waiting:
        new = set(held[waiting.pop()]) - found
        found |= new
        waiting += new
    return sorted(found)


def changed(objects: Sequence[Any], before: Sequence[str], foreign: Callable[..., Any]) -> list[int]:
    """The places of the objects whose states are no longer those."""
    return [i for i, (now, then) in enumerate(zip(wire.states(objects, foreign), before, strict=True)) if now != then]
