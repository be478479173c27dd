"""Mutable objects that the answer and the tests both hold: what one side changes, the other one sees.

Both processes have the same list of such objects. Each tells the other which it still refers to, so that the list holds
only those that an answer keeps after a call and the tests keep, too. A function that keeps nothing has none of them; a
cache or a stack has as many as it holds lists. Each question compares all of them with what they were, so the work is
bounded: after `_MOST_COMPARED` nothing is followed any more, and what crosses from then on is a copy.

Both lists stay alike because both sides take the same steps in the same order. A question holds what the judge still
keeps, what it has changed and what is new; the prisoner fills in the changes, keeps, adds. Its answer holds what it has
changed and what is new, and on a second line what it still keeps (null: nothing any more); the judge fills in, adds,
keeps. Each side then remembers what all of them hold (`agree`).
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import wire  # type: ignore[import-not-found]

_MOST_COMPARED = 1 << 23  # bytes of states, in one run
BOUND = f"{_MOST_COMPARED >> 20} MiB of objects that both sides keep"
_EACH = 64  # bytes that an object counts at least
_TEXT = 4  # how many bytes one of a text counts: it takes longer to make


def _references(objects: list[Any], place: int) -> int:
    return sys.getrefcount(objects[place])


_HERE = _references([[]], 0)  # of an object that stands in the list alone


class Shared:
    """One side's list of the objects, with what each held when both sides last had the same."""

    def __init__(self, foreign: Callable[..., Any]):
        self.objects: list[Any] = []
        self._states: list[wire.State | None] = []  # None: not looked at yet
        self._foreign = foreign
        self._compared = 0

    @property
    def is_spent(self) -> bool:
        """Whether nothing is followed any more."""
        return self._compared > _MOST_COMPARED

    def end(self) -> None:
        """Follow nothing any more: the other side has compared too much."""
        self._compared = _MOST_COMPARED + 1

    def add(self, new: Iterable[Any]) -> None:
        self.objects += new
        self._states += [None] * (len(self.objects) - len(self._states))

    def keep(self, places: Iterable[int]) -> None:
        """Follow these alone from now on."""
        places = list(places)
        self.objects = [self.objects[place] for place in places]
        self._states = [self._states[place] for place in places]

    def forget(self, places: Iterable[int]) -> None:
        """What these held: the other side has changed them."""
        for place in places:
            self._states[place] = None

    def agree(self) -> None:
        """Both sides have the same now."""
        places = wire.by_identity(self.objects)
        for place, state in enumerate(self._states):
            if state is None:
                self._states[place] = wire.state(self.objects[place], self._foreign, places)

    def changed(self) -> list[int]:
        """The places of the objects that no longer hold what they held; the other side must be told what they hold."""
        places, found = wire.by_identity(self.objects), []
        for place, own in enumerate(self.objects):
            state = wire.state(own, self._foreign, places)
            self._compared += max(len(state) * (_TEXT if isinstance(state, str) else 1), _EACH)
            if state != self._states[place]:
                self._states[place] = state
                found.append(place)
        return found

    def retained(self) -> list[int]:
        """The places of those objects that something else than this list refers to, directly or through another one.

        The caller must not refer to them otherwise.
        """
        objects = self.objects
        if not objects or self.is_spent:
            return []
        places = {id(each): i for i, each in enumerate(objects)}
        inside: Counter[int] = Counter()
        held = [[places[id(each)] for each in gc.get_referents(own) if id(each) in places] for own in objects]
        for one in held:
            inside.update(one)
        waiting = [i for i in range(len(objects)) if _references(objects, i) > _HERE + inside[i]]
        found = set(waiting)
        while waiting:
            new = set(held[waiting.pop()]) - found
            found |= new
            waiting += new
        return sorted(found)
