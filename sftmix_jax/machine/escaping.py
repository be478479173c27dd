"""How text from data, models and endpoints is written into each kind of output, so that it is shown and never obeyed.

Records hold text as it is; whoever writes an output escapes it there, once, by the rule of that output.
"""

from __future__ import annotations

import base64
import hashlib
import html as _html
import json
import re
from typing import Any
from urllib.parse import quote, quote_plus

# C0 controls but tab and newline, DEL, C1 controls, and halves of surrogate pairs, which no encoding can write.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?%?|[-+]?(inf|nan)", re.IGNORECASE)
_FORMULA = ("=", "+", "-", "@", "\t", "＝", "＋", "－", "＠")
_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"{\char34}",
    "[": "{[}",
    "*": "{*}",  # behind the \\ of the row before they would be its arguments
    "\n": " ",
    "\t": " ",
}


def visible(text: str) -> str:
    """Control characters as their escapes: a terminal shows `\\x1b[31m` and does not turn red."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def html(text: str) -> str:
    """For the text of an element, or an attribute in quotes."""
    return _html.escape(visible(text))


def plotly(text: str) -> str:
    """For a label of a figure on the page: plotly.js reads a part of HTML in labels, links too, and mathematics."""
    return _html.escape(visible(text), quote=False).replace("$", "&#36;")


def csv(cell: Any) -> Any:
    """A cell that no spreadsheet computes; numbers stay numbers, also those that are text already."""
    if not isinstance(cell, str):
        return cell
    text = visible(cell)
    return f"'{text}" if text.lstrip(" \n").startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text


def latex(text: str) -> str:
    """For a cell of a table."""
    escaped = "".join(_LATEX.get(sign, sign) for sign in visible(text))
    return re.sub("-(?=-)", "-{}", escaped)  # two in a row would be a dash


def file_name(name: str) -> str:
    """One part of a path, the same for the same name: other names than of letters, digits, `_`, `.`, `-` get a hash."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".-")[:100]
    if name and plain == name:
        return name
    return f"{plain}-{hashlib.sha256(name.encode(errors='backslashreplace')).hexdigest()[:8]}"


_PART = 8  # characters of a secret that are as good as all of it: a message may quote it cut short


def redacted(text: str, secret: str) -> str:
    """The text without the secret, its parts, and its other spellings in URLs, JSON and HTTP's basic authentication."""
    secret = secret.strip()
    if len(secret) < 4:  # no secret, and a part of other words
        return text
    spellings = {
        secret,
        quote(secret, safe=""),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        base64.b64encode(secret.encode()).decode().rstrip("="),
    }
    hidden = [False] * len(text)
    for spelling in spellings:
        width = min(_PART, len(spelling))
        parts = {spelling[i : i + width] for i in range(len(spelling) - width + 1)}
        for i in range(len(text) - width + 1):
            if text[i : i + width] in parts:
                hidden[i : i + width] = [True] * width
    return "".join(
        "[key]" if hide and not before else "" if hide else sign
        for sign, hide, before in zip(text, hidden, [False, *hidden], strict=False)
    )
