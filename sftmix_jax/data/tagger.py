"""Whether a conversation is about code or mathematics: a classifier that can be read in a minute.

The paper's ablation takes the code and mathematics out of ShareGPT by the tags of an open-set tagger, which is not
part of it. This one counts plain signs instead; any other can take its place (`Source.tagger`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sftmix_jax.data.messages import Message

VERSION = 1  # raise it when tags change: it is part of what identifies a source

_CODE = re.compile(
    r"```|\bdef \w+\(|\bclass \w+[:({]|\bimport \w+|#include\b|\bpublic static\b|\bconsole\.log\b|</\w+>"
    r"|\bSELECT\b.+\bFROM\b"
    r"|\b(?:python|javascript|java|c\+\+|sql|html|css|bash|regex|api|algorithm|compiler|debug|function|script|code)\b",
    re.IGNORECASE,
)
_MATH = re.compile(
    r"\d\s*[-+*/^=×÷]\s*\d|\\frac|\\sqrt|\\int|\$[^$]+\$|\b[xyz]\s*=\s*-?\d"
    r"|\b(?:equation|integral|derivative|theorem|polynomial|algebra|calculus|probability|arithmetic|geometry|matrix"
    r"|solve for|calculate|multiply|divided by|sum of|square root|mathematics?)\b",
    re.IGNORECASE,
)
TAGS = ("code", "math")
_A_LOT = 2.0  # signs in a hundred words that make a subject; a fence or three different signs do as well


def tags(messages: Sequence[Message]) -> set[str]:
    """`code`, `math`, both or neither."""
    text = "\n".join(message.content for message in messages)
    words = max(len(text.split()), 1)
    found = set()
    for tag, sign in zip(TAGS, (_CODE, _MATH), strict=True):
        signs = [match.group().lower() for match in sign.finditer(text)]
        often = 100 * len(signs) / words >= _A_LOT
        if "```" in signs or (often and len(signs) >= 2) or len(set(signs)) >= 4:
            found.add(tag)
    return found
