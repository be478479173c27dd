"""Typed access to the fields of a config.json; what nobody asked for is known by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.model_folder import short

SIZES = range(1, 1 << 31)
_FULL, _SLIDING = "full_attention", "sliding_attention"


def is_int(value: Any) -> bool:
    """True for a whole number; booleans are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e30


class Fields:
    """The fields of a JSON object; a field of null counts as absent. All raise UserError with the field's name."""

    def __init__(self, record: dict[str, Any], where: str):
        self._record, self.where = record, where
        self._asked: set[str] = set()

    def has(self, name: str) -> bool:
        """True if the field is there and not null."""
        self._asked.add(name)
        return self._record.get(name) is not None

    def _get(self, name: str, default: Any) -> Any:
        if self.has(name):
            return self._record[name]
        if default is None:
            raise UserError(f"{self.where}: the field '{name}' is missing")
        return default

    def size(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if not is_int(value) or value not in SIZES:
            raise self.error(name, value, "a whole number from 1 to 2^31 - 1")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        if not _is_number(value):
            raise self.error(name, value, "a positive number")
        return float(value)

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """A list of so many positive numbers."""
        value = self._get(name, None)
        if not isinstance(value, list) or len(value) != count or not all(map(_is_number, value)):
            raise self.error(name, value, f"a list of {count} positive numbers")
        return tuple(map(float, value))

    def window(self, name: str, absent: int = 0) -> int:
        """A size, where null means none (0) and an absent field `absent`."""
        return self.size(name, absent) if self.has(name) or (absent and name not in self._record) else 0

    def cap(self, name: str, absent: float = 0.0) -> float:
        """A number, where null means none (0) and an absent field `absent`."""
        return self.number(name, absent) if self.has(name) or (absent and name not in self._record) else 0.0

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, value, "true or false")
        return value

    def object(self, name: str) -> dict[str, Any]:
        value = self._get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, value, "an object")
        return value

    def layers(self, name: str, count: int, default: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        """A list with one of `values` per layer."""
        value = self._get(name, list(default))
        if not isinstance(value, list) or len(value) < count or any(each not in values for each in value):
            raise self.error(name, value, f"a list of {count} out of {', '.join(map(str, values))}")
        return value[:count]

    def sliding(self, count: int, default: Sequence[bool]) -> list[bool]:
        """`layer_types`: for each layer, whether its attention has a window."""
        names = [_SLIDING if each else _FULL for each in default]
        return [kind == _SLIDING for kind in self.layers("layer_types", count, names, (_FULL, _SLIDING))]

    def only(self, name: str, wanted: Any) -> None:
        """A field whose other values would make a model that is not supported."""
        value = self._record[name] if self.has(name) else wanted
        if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
            raise UserError(f"{self.where}: {name} is {short(value)}; only {short(wanted)} is supported")

    def skip(self, *names: str) -> None:
        """Fields that mean nothing here."""
        self._asked.update(names)

    def error(self, name: str, value: Any, wanted: str) -> UserError:
        """What to raise for a value that is not what is wanted."""
        return UserError(f"{self.where}: {name} is {short(value)}; must be {wanted}")

    def left(self) -> list[str]:
        """Fields that hold something and were not asked for."""
        return sorted(
            name
            for name, value in self._record.items()
            if name not in self._asked and value is not None and value is not False
        )


def layer_types(sliding: Sequence[bool]) -> list[str]:
    """The inverse of `Fields.sliding`."""
    return [_SLIDING if each else _FULL for each in sliding]
