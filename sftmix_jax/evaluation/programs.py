"""How an answer to a programming problem is read: text of a model → the program that is run.

The rules are those of the reference harnesses. A chat model's answer is code among prose and fences: the longest
fenced block that defines the entry point (of equal ones the first), else the longest run of lines that is Python and
defines it. A base model goes on where the prompt ends: its text is the function's body, up to where it stops being
Python. Of either, imports are kept and what the entry point reaches, as EvalPlus' sanitizer does: calls behind it, a
main part, half a function at the end do not run.
"""

from __future__ import annotations

import ast
import functools
import itertools
import math
import re
import textwrap
import threading
import warnings
from collections.abc import Collection, Iterator, Sequence
from types import CodeType

from sftmix_jax.evaluation.task import Program

_FENCE = re.compile(r"^( *)(`{3,}|~{3,})([^`\n]*)$")
_GLUED = re.compile(r"^(.*[^\s`~])[ \t]*(`{3,}|~{3,})[ \t]*$")  # the fence that closes a block, behind its last line
_END_TOKEN = re.compile(r"(?:<\|\w{1,40}\|>|</s>|<eos>)\Z")  # as some stored answers end with
_BLOCK = re.compile(r"^ *(`{3,}|~{3,})[^`\n]*\n(.*?)^ *\1", re.MULTILINE | re.DOTALL)
_START = re.compile(r"(?:from|import|def|async|class|if|try|for|while|with)\b|@|\w[\w, .\[\]]*(?::[^=]+)?=(?!=)")
_NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
_MOST_READ = 1 << 26  # characters that are compiled of one answer, again and again: some seconds
_OPEN = 8  # times its characters counts a text with a bracket that is never closed: Python reads all of it, slowly
_CLOSINGS = 20  # lines that are tried as a block's end; each is compiled
_TREES = threading.Lock()  # Python counts the depth of a syntax tree once for all threads (SystemError: depth mismatch)
warnings.filterwarnings("ignore", category=SyntaxWarning, module="<answer>")  # escapes in a model's text literals


class _TooLong(Exception):
    """An answer takes too long to read."""


class _Reading(threading.local):
    """How many characters this thread may still compile to read an answer."""

    left = math.inf

    def spend(self, characters: int) -> None:
        self.left -= characters
        if self.left < 0:
            raise _TooLong


_reading = _Reading()


def program(prompt: str, entry_point: str, response: str, names: Sequence[str] = ()) -> str:
    """The program that an answer is. `names` are kept beside the entry point, as tests may use them."""
    if isinstance(response, Program):
        return str(response)
    text = response.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    while ended := _END_TOKEN.search(text.rstrip()):
        text = text[: ended.start()] + "\n"
    _reading.left = _MOST_READ
    try:
        return _program(prompt, entry_point, text, names)
    except _TooLong:  # very many lines could begin a program, and what follows them has no end
        blocks = [block[2] for block in _BLOCK.finditer(text) if re.search(rf"\b{re.escape(entry_point)}\b", block[2])]
        return blocks[-1] if blocks else prompt + "\n" + text
    except RecursionError:  # nested too deeply to be looked into: it is run as it stands
        return (list(_fenced(text)) or [prompt + "\n" + text])[-1]
    finally:
        _reading.left = math.inf


def _program(prompt: str, entry_point: str, text: str, names: Sequence[str]) -> str:
    before, head = split(prompt, entry_point)
    if not _compiled(before):  # prose, or a fence that the prompt opens
        before = ""
    wanted = {entry_point, *names}
    continued = _continued(before, head, text, entry_point, wanted) if head else ""
    if continued and not _is_empty(continued, entry_point):
        return continued
    fenced = list(_fenced(text))
    blocks = [code for code in fenced if _binds(code, entry_point)]
    if not any(_defines(code, entry_point) for code in blocks):
        pieces = _pieces(text)
        every = [*pieces[::-1], "\n".join(pieces), text, textwrap.dedent(text), text.lstrip()]
        found = (_longest_run(piece, entry_point) for piece in dict.fromkeys(every))
        usable = (code for code in found if code and (not blocks or _defines(code, entry_point)))
        blocks += itertools.islice(usable, 1)
    if continued and not any(_defines(code, entry_point) for code in blocks):
        return continued
    if blocks:
        defining = [code for code in blocks if _defines(code, entry_point)] or blocks
        return _joined(before, _reached(max(map(_python, defining), key=_lines), wanted))
    if fenced and _compiled(fenced[-1]):  # a program, though of something else
        return _joined(before, fenced[-1])
    return prompt + ("" if prompt.endswith("\n") or not prompt else "\n") + text


def parse(code: str) -> ast.Module:
    """The syntax tree of a program. Raises what ast.parse raises."""
    with _TREES:
        return ast.parse(code)


def split(prompt: str, entry_point: str) -> tuple[str, str]:
    """A prompt's imports and helpers, and the head of the function that it begins ("" where it begins none)."""
    heads = list(re.finditer(rf"^(?:@.*\n)*(?:async +)?def +{re.escape(entry_point)}\b", prompt, re.MULTILINE))
    if heads:
        return prompt[: heads[-1].start()], prompt[heads[-1].start() :]
    return prompt, ""


def context(prompt: str, entry_point: str) -> str:
    """Of a prompt what tests may need: its imports and helpers, "" where they are no program."""
    before, _ = split(prompt, entry_point)
    return before if _compiled(before) else ""


def _continued(before: str, head: str, text: str, entry_point: str, wanted: Collection[str]) -> str:
    """The program where the text goes on in the function that the prompt begins, else ""."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    if (head.endswith("\n") and not first[:1].isspace()) or _FENCE.match(first):
        return ""
    body = _pieces(text)[0]
    for between in ("", "\n"):
        whole = head + between + body
        code = _python(whole)
        if len(code.rstrip()) > len(head.rstrip()):
            return _joined(before, _reached(code, wanted, only_first=entry_point))
    return ""


def _pieces(text: str) -> list[str]:
    """The text between the lines that are fences."""
    pieces: list[list[str]] = [[]]
    for line in text.split("\n"):
        if _FENCE.match(line):
            pieces.append([])
        else:
            pieces[-1].append(line)
    return ["\n".join(piece) + "\n" for piece in pieces]


def _fenced(text: str) -> Iterator[str]:
    """Fenced blocks. A block ends at the first line that can close it and leaves Python: docstrings hold fences."""
    lines = text.split("\n")
    i = 0
    while i < len(lines):
        opening = _FENCE.match(lines[i])
        i += 1
        if not opening:
            continue
        ends = list(itertools.islice(_ends(lines, i, opening), _CLOSINGS))
        blocks = [textwrap.dedent("\n".join([*lines[i:j], *last])) + "\n" for j, last in ends]
        whole = next((n for n, block in enumerate(blocks) if block.strip() and _compiled(block)), None)
        if whole is None and not opening[3].strip():
            continue  # it closes a block that the prompt has opened
        if whole is None:
            whole = next((n for n, (_, last) in enumerate(ends) if not last), len(ends) - 1)
        yield blocks[whole]
        i = ends[whole][0] + 1


def _ends(lines: list[str], begin: int, opening: re.Match[str]) -> Iterator[tuple[int, list[str]]]:
    """Lines at which a block can end, with what of the line is the block's; the end of the text is the last of them."""
    for j in range(begin, len(lines)):
        if _closes(lines[j], opening):
            yield j, []
        elif (glued := _GLUED.match(lines[j])) and glued[2][0] == opening[2][0]:
            yield j, [glued[1]]
    yield len(lines), []


def _closes(line: str, opening: re.Match[str]) -> bool:
    fence = _FENCE.match(line)
    return (
        fence is not None
        and fence[2][0] == opening[2][0]
        and len(fence[2]) >= len(opening[2])
        and not fence[3].strip()
        and len(fence[1]) <= len(opening[1]) + 3
    )


def _longest_run(text: str, entry_point: str) -> str:
    """The longest run of lines that is Python and binds the entry point, else ""."""
    lines, best, end = text.split("\n"), "", 0
    for i, line in enumerate(lines):
        if i >= end and _START.match(line):
            code = _python("\n".join(lines[i:]))
            end = i + max(code.count("\n"), 1)
            if _binds(code, entry_point) and _lines(code) >= _lines(best):
                best = code
    return best


def _lines(code: str) -> int:
    return sum(1 for line in code.split("\n") if line.strip())


@functools.lru_cache(maxsize=64)
def _python(text: str) -> str:
    """The text up to where it stops being Python, as a whole number of statements."""
    lines = text.split("\n")
    while lines:
        code = "\n".join(lines)
        _reading.spend(len(code))
        try:
            compile(code, "<answer>", "exec", dont_inherit=True)
            return code + "\n"
        except SyntaxError as error:
            if "never closed" in str(error.msg):
                _reading.spend(_OPEN * len(code))
            lines = lines[: min(max((error.lineno or 1) - 1, 0), len(lines) - 1)]
        except _NOT_PYTHON:
            break
    return ""


def _compiled(code: str) -> CodeType | None:
    _reading.spend(len(code))
    try:
        return compile(code, "<answer>", "exec", dont_inherit=True)
    except _NOT_PYTHON:
        return None


def _binds(code: str, name: str) -> bool:
    """Whether the code, up to where it stops being Python, gives this name a value at its top level."""
    return any(name in _bound(statement) for statement in parse(_python(code)).body)


def _defines(code: str, name: str) -> bool:
    """Whether the code gives the name a value of its own: not an import of it, its mere head, or itself."""
    return any(name in _bound(s) and not _is_mention(s, name) for s in parse(_python(code)).body)


def _is_mention(statement: ast.stmt, name: str) -> bool:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return _has_no_body(statement, name)
        case ast.ImportFrom(names=names):
            return any(alias.name == name and alias.asname in (None, name) for alias in names)
        case ast.Assign(value=ast.Name(id=value)):
            return value == name
        case ast.Import() | ast.For():
            return True
    return False


def _has_no_body(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    """Whether a function does nothing: a docstring, `pass`, `...`, or itself once more."""
    return all(
        isinstance(s, ast.Pass)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        or (isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef) and s.name == name)
        for s in function.body
    )


def _is_empty(code: str, name: str) -> bool:
    """Whether a program's function of this name has no body, so that the answer must stand elsewhere."""
    found = [s for s in parse(code).body if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef) and s.name == name]
    return bool(found) and _has_no_body(found[-1], name)


def _joined(before: str, code: str) -> str:
    """Imports and helpers before the code; what the future brings stands first."""
    future = [s for s in parse(code).body if isinstance(s, ast.ImportFrom) and s.module == "__future__"]
    lines = code.split("\n")
    for statement in future:
        last = statement.end_lineno or statement.lineno
        lines[statement.lineno - 1 : last] = [""] * (last - statement.lineno + 1)
    parts = [*map(ast.unparse, future), before.rstrip("\n"), "\n".join(lines).strip("\n")]
    return "\n".join(part for part in parts if part) + "\n"


def _reached(code: str, wanted: Collection[str], only_first: str = "") -> str:
    """Imports, and the statements that give what is wanted its value, whatever they need included."""
    body = parse(code).body
    if only_first:
        whole = next((i for i, s in enumerate(body) if only_first in _bound(s)), len(body))
        body = [s for i, s in enumerate(body) if i <= whole or only_first not in _bound(s)]
    bound, used = [_bound(s) | _changed(s) for s in body], [_used(s) for s in body]
    imports = (ast.Import, ast.ImportFrom)
    kept = {i for i, s in enumerate(body) if isinstance(s, imports) or _sets_recursion(s)}
    names = set(wanted)
    while more := {i for i in range(len(body)) if i not in kept and bound[i] & names}:
        kept |= more
        names |= set().union(*(used[i] for i in more))
    if len(kept) == len(body) and not only_first:
        return code
    lines, out, end = code.split("\n"), [], 0
    for i in sorted(kept):
        start = min([body[i].lineno, *(d.lineno for d in getattr(body[i], "decorator_list", []))])
        out += lines[max(start - 1, end) : body[i].end_lineno]
        end = body[i].end_lineno or end
    return "\n".join(out) + "\n"


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of the top level gives a value."""
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return set()
    found = set()
    for node in _outside_functions(statement):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {(alias.asname or alias.name).partition(".")[0] for alias in names}
    return found


def _changed(statement: ast.stmt) -> set[str]:
    """The names whose values a statement changes in place: `a[0] = 1`, `a.x = 1`, `a.append(1)`."""
    found = set()
    for node in _outside_functions(statement):
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            found.add(_root(node))
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found.add(_root(node.value.func) if isinstance(node.value.func, ast.Attribute) else "")
    return found - {""}


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _used(statement: ast.stmt) -> set[str]:
    """The names that a statement may look up at the top level (with those of attributes, which do no harm)."""
    with _TREES:
        compiled = compile(ast.Module([statement], []), "<answer>", "exec", dont_inherit=True)
    found: set[str] = set()
    waiting = [compiled]
    while waiting:
        code = waiting.pop()
        found |= set(code.co_names)
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found


def _sets_recursion(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="sys"), attr="setrecursionlimit"))):
            return True
    return False
