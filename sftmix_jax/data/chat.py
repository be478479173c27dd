"""One renderer of chat, for training and for sampling: messages → text → tokens and loss weights.

All templates are jinja and rendered alike: the built-in ones (templates/), a tokenizer's own, and a user's file. The
text is tokenised as a whole, as transformers does. A token has the weight of the piece that it starts in: that of the
assistant's message for what the model itself is to write, from the generation prompt up to and with the end of turn,
and 0 elsewhere. So a token that starts in the generation prompt and ends in the answer is not trained on.

Words never become a template's marks. A row or a prompt is refused whose words hold
- a special token of the tokenizer,
- a mark that the template writes around words (`<|im_end|>`, `[INST]`), whether or not it is one token,
- what ends its assistant turns, of whatever form,
- a header of words, as the template writes it (`USER:`, `**User**:`, `### Response`), in chat.
Tags of reasoning (`<think>`) are words: they cannot end or begin a turn.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from sftmix_jax.data import marked, tool_calls, turns
from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.data.template import Template, complete
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.data.turns import MARK, Turn
from sftmix_jax.machine.errors import UserError, did_you_mean

_FOLDER = Path(__file__).parent / "templates"
TEMPLATES = tuple(sorted(file.stem for file in _FOLDER.glob("*.jinja")))
OWN = "jinja"  # the name of every template that is not built in
DEFAULT = "vicuna_v1.1"  # for a tokenizer without a template of its own
_REASONING = re.compile("think|thought|reason", re.IGNORECASE)
_REASONED = {"reasoning_content": "qz0008zq"}
_HEADER = re.compile(r"^\s*((?:#+ )?\**\w[\w ]{0,30}\**[:：>]\**|#+ \w[\w ]{0,30}|\*\*\w[\w ]{0,30}\*\*)\s*$")
# Of a template's constants; in words other ones are common
_BRACKETED = re.compile(r"\[/?[A-Za-z_]+\]|<[^<>\n]{1,64}>|<!--.{1,64}?-->")
Tools = Sequence[Mapping[str, Any]]

_ROLES = ("user", "assistant", "user", "assistant")
_PROBED = [  # what a template is asked about itself
    [Message(role, "words") for role in roles]
    for roles in (_ROLES, ("system", *_ROLES), _ROLES[:2], ("system", *_ROLES[:2]))
]
_OFFERED: tuple[Tools, Tools] = ((), tool_calls.TOOLS)
_LISTED = re.compile(r"""['"]type['"]: ?['"]text""")  # a list of parts that is written as it is, not read


class Piece(NamedTuple):
    text: str
    weight: float = 0.0  # of the loss of its tokens; 0: not trained on


class Rendering(NamedTuple):
    """A conversation's text, piece by piece; or a document, around which the tokenizer itself puts tokens."""

    pieces: list[Piece]
    document: bool = False
    left_out: frozenset[str] = frozenset()  # what the template has no place for, and no message's words lack

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


class _Part(NamedTuple):
    """A stretch of the text of conversations with the same roles."""

    literal: str
    message: int  # whose words stand here; -1: the literal does
    turn: int  # in whose turn it is; -1: in none


class _Probe(NamedTuple):
    """A conversation whose words stand nowhere else, rendered."""

    messages: Sequence[Message]
    text: str
    turns: list[Turn]


class Chat:
    """A chat template with the tokenizer that reads it.

    `template`: the name of a built-in one; jinja: the tokenizer's own; FILE.jinja; "": the tokenizer's own if it has
    one, else vicuna_v1.1. `source`: the template's text where it is known already, as that of a stage is.
    Raises UserError for a template that is not there, is no jinja, or renders no message.
    """

    def __init__(self, template: str, tokenizer: Tokenizer, source: str | None = None):
        self.tokenizer = tokenizer
        template = template or (OWN if tokenizer.chat_template else DEFAULT)
        self.name = template if template in TEMPLATES else OWN
        self.label, text = _found(template, tokenizer)
        if source is not None:
            text = source
        begin = tokenizer.begin if self.name in TEMPLATES and source is None else None
        self.source = complete(text, begin)
        self._template = Template(self.source, tokenizer.special_tokens, self.label)
        self._skeletons: dict[tuple[str, ...], list[_Part] | None] = {}
        self._template.takes_parts = self._wants_parts()
        self._check()

    @property
    def fingerprint(self) -> str:
        """The template's name and a hash of its text, for identities."""
        return f"{self.name}:{hashlib.sha256(self.source.encode()).hexdigest()[:16]}"

    @property
    def description(self) -> str:
        """One line that names the template, and one for each notice."""
        return "\n".join([f"chat template: {self.label}", *(f"warning: chat template: {n}" for n in self.notices)])

    def save(self, folder: epath.Path) -> None:
        """Write the tokenizer's files, with this template as its own."""
        self.tokenizer.save(folder, self.source)

    # --- training ---------------------------------------------------------------------------------

    def pieces(self, messages: Sequence[Message], tools: Tools = ()) -> Rendering:
        """The conversation's text, piece by piece.

        Raises BadRow for what the template refuses, leaves out or rewrites, and for words that hold its marks.
        """
        if messages[0].role == "text":
            self._refuse(self._marks, messages[0].content)
            return Rendering([Piece(messages[0].content, messages[0].weight)], document=True)
        messages = self._prepared(messages, tools)
        if not tools and not any(m.fields for m in messages):
            parts = self._skeleton(messages)
            if parts is not None:
                pieces = [
                    Piece(
                        messages[part.message].content if part.message >= 0 else part.literal,
                        messages[part.turn].weight if part.turn >= 0 else 0.0,
                    )
                    for part in parts
                ]
                rendering = Rendering(pieces)
                if rendering.text == self._template.render(messages):
                    return rendering  # the template writes around these words what it writes around any
        text, found = turns.find(self._template, messages, tools)
        pieces, done = [], 0
        for turn in found:
            own = Piece(text[turn.start : turn.stop], messages[turn.message].weight)
            pieces += [Piece(text[done : turn.start]), own]
            done = turn.stop
        return Rendering([*pieces, Piece(text[done:])], left_out=self._left_out(messages, tools, text))

    def _left_out(self, messages: Sequence[Message], tools: Tools, text: str) -> frozenset[str]:
        """The names of participants by role, where the text is the same without them."""
        roles = {m.role for m in messages if "name" in m.fields} - {"tool"}  # there it labels a result
        found = set()
        for role in roles:
            nameless = [
                m._replace(fields={k: v for k, v in m.fields.items() if k != "name"}) if m.role == role else m
                for m in messages
            ]
            if self._template.render(nameless, tools) == text:
                found.add(f"name of {role} turns")
        return frozenset(found)

    def encode(self, renderings: Sequence[Rendering]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Renderings → tokens int32 [n] and the weights of their losses, float32 [n]; 0 where not trained on.

        A document begins with what the tokenizer itself puts before a text, and ends with the end of sequence.
        """
        encoded = []
        spans = self.tokenizer.encode_with_offsets([rendering.text for rendering in renderings])
        for rendering, (ids, starts) in zip(renderings, spans, strict=True):
            weights = np.array([piece.weight for piece in rendering.pieces], np.float32)
            if rendering.document:
                ids = np.array([*self.tokenizer.begin_ids, *ids, self.tokenizer.eos_id], np.int32)
                loss = np.full(len(ids), weights[0], np.float32)
                loss[: len(self.tokenizer.begin_ids)] = 0
            else:
                ends = np.cumsum([len(piece.text) for piece in rendering.pieces])
                loss = weights[np.searchsorted(ends, starts, side="right").clip(max=len(weights) - 1)]
            encoded.append((ids, loss))
        return encoded

    # --- sampling ---------------------------------------------------------------------------------

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """Tokens up to where the assistant's next answer starts. Raises BadRow as `pieces` does.

        Earlier answers may be rendered without what the template leaves out of them, such as their reasoning.
        """
        messages = self._prepared(messages, tools)
        text = self._template.render(messages, tools, prompt=True)
        marked.find(self._template, messages, tools, text, prompt=True, lossy="assistant")
        return self.tokenizer.encode(text)

    def answer(self, messages: Sequence[Message], text: str, tools: Tools = ()) -> tuple[list[int], list[int]]:
        """The tokens that are trained on where `text` answers `messages`, behind all the tokens before them."""
        before = [message._replace(weight=0.0) for message in messages]
        found = self.trained([*before, Message("assistant", text)], tools)
        if not found:
            raise BadRow("an answer without tokens")
        return found[0]

    def trained(self, messages: Sequence[Message], tools: Tools = ()) -> list[tuple[list[int], list[int]]]:
        """Each run of tokens that a conversation trains, behind all the tokens before it. Raises BadRow."""
        tokens, weights = self.encode([self.pieces(messages, tools)])[0]
        weights[:1] = 0  # nothing predicts the first token
        borders = np.flatnonzero(np.diff(weights > 0, prepend=False, append=False))
        return [(tokens[:a].tolist(), tokens[a:b].tolist()) for a, b in borders.reshape(-1, 2)]

    def stops(self) -> tuple[list[int], list[str]]:
        """What ends an answer: token ids, and strings where the tokenizer has no such token."""
        ids, strings = [self.tokenizer.eos_id], []
        for end in dict.fromkeys(turn.end for turn in self._probes[0].turns):
            token, text = self.tokenizer.first_added_token(end.strip())
            if text:
                strings.append(text)
            elif token is not None:
                ids.append(token)
        if self._forms:
            arguments = {"qzk": "qzv"} if "object" in self._forms else '{"qzk": "qzv"}'
            called = self._look(tool_calls.probe(arguments), tool_calls.TOOLS)
            ids += self.tokenizer.special_ids_in(called.turns[-1].end)[-1:] if called else []
        return list(dict.fromkeys(ids)), list(dict.fromkeys(strings))

    def _stopping(self) -> list[str]:
        """What ends an answer, in words."""
        ids, strings = self.stops()
        tokens = [self.tokenizer.decode_whole([token]) for token in ids]
        return [f"'{text}'" for text in dict.fromkeys([*tokens, *strings])]

    @cached_property
    def notices(self) -> list[str]:
        """What a user should know of the template before training with it."""
        found, probe = [], self._probes[0]
        if not all(turn.end.strip() for turn in probe.turns):
            found.append(
                "it does not end every assistant turn, so a model trained with it does not learn to stop there; "
                f"answers stop at {' or '.join(self._stopping())}, or at their greatest length"
            )
        reasoned = self._look([Message("user", "words"), Message("assistant", "words", fields=_REASONED)])
        every = [*probe.turns, *(reasoned.turns if reasoned else ())]
        if opened := next((turn.opened for turn in every if turn.opened), ""):
            found.append(
                f"its generation prompt ends with {opened!r}, which it does not write before every answer in a "
                "conversation: such answers are trained on without it, and sampled after it"
            )
        first = probe.turns[0]
        head = probe.text[first.start : first.stop].partition(probe.messages[first.message].content)[0]
        if MARK.search(head) and not _REASONING.search(head):
            found.append(f"its generation prompt does not write {head!r}, which the model therefore learns to write")
        if (joined := self._joined(probe.text, first.start)) is not None:
            found.append(
                f"its generation prompt ends with {joined!r}, which the tokenizer joins with an answer's first word: "
                "that word is not trained on, and answers are sampled behind tokens that training never saw. Let the "
                "template end its prompt before that"
            )
        return found

    def _joined(self, text: str, start: int) -> str | None:
        """What ends a prompt and shares a token with the answer behind it; None where no token holds both."""
        asked, whole = self.tokenizer.encode(text[:start]), self.tokenizer.encode(text)
        same = next((i for i, pair in enumerate(zip(asked, whole, strict=False)) if pair[0] != pair[1]), len(asked))
        return self.tokenizer.decode_whole(asked[same:]) if same < len(asked) else None

    # --- the template, looked at once ---------------------------------------------------------------

    def _prepared(self, messages: Sequence[Message], tools: Tools) -> Sequence[Message]:
        """Raises BadRow for words that hold marks."""
        for message in messages:
            self._refuse(self._marks, message.content)
            self._refuse(self._headers, message.content)
            if message.fields:
                words = "\0".join(tool_calls.strings(message.fields))
                self._refuse(self._marks, words)
                self._refuse(self._headers, words)
        if tools:
            self._refuse(self._marks, "\0".join(tool_calls.strings(tools)))
        return tool_calls.in_form(messages, self._forms) if any(m.fields for m in messages) else messages

    @staticmethod
    def _refuse(marks: re.Pattern[str] | None, words: str) -> None:
        if marks and (found := marks.search(words)):
            raise BadRow(f"the text holds '{found.group()}', which is a control token or a mark of the chat template")

    @cached_property
    def _forms(self) -> frozenset[tool_calls.Form]:
        return tool_calls.argument_forms(self._template)

    @cached_property
    def _probes(self) -> list[_Probe]:
        """Conversations that the template can hold; with tools, where it holds none without."""
        found = [[probe for messages in _PROBED if (probe := self._look(messages, tools))] for tools in _OFFERED]
        return found[0] or found[1]

    def _check(self) -> None:
        """Raise UserError for a template that nothing can be trained with, before any row is read."""
        reasons = []
        for messages, tools in () if self._probes else itertools.product(_PROBED, _OFFERED):
            try:
                turns.find(self._template, messages, tools)
            except BadRow as reason:
                reasons.append(str(reason))
        if reasons:
            said = next((reason for reason in reasons if "cannot hold it" not in reason), reasons[0])
            raise UserError(f"{self.label}: renders no user message with its answer: {said}")

    def _look(self, messages: Sequence[Message], tools: Tools = ()) -> _Probe | None:
        named = _sentinels(messages)
        try:
            return _Probe(named, *turns.find(self._template, named, tools))
        except BadRow:
            return None

    @cached_property
    def _constants(self) -> list[str]:
        """What the template writes around words, apart from what an answer begins with."""
        found = []
        for probe in self._probes:
            for part in _parts(probe) or ():
                if part.message < 0:
                    found.append(part.literal)
        return found

    @cached_property
    def _marks(self) -> re.Pattern[str] | None:
        text = "\0".join(self._constants)
        found = {mark.group() for pattern in (MARK, _BRACKETED) for mark in pattern.finditer(text)}
        ends = {turn.end.strip() for probe in self._probes for turn in probe.turns}
        found = {mark for mark in found if not _REASONING.search(mark)} | self.tokenizer.special
        return _any_of(found | ends - {""})  # an end of whatever form: answers stop there

    @cached_property
    def _headers(self) -> re.Pattern[str] | None:
        lines = itertools.chain.from_iterable(MARK.sub("\n", text).splitlines() for text in self._constants)
        return _any_of({match.group(1) for line in lines if (match := _HEADER.match(line))}, r"(?<!\w)")

    def _wants_parts(self) -> bool:
        """Whether the template reads content as a list of parts alone."""
        messages = _sentinels([Message("user", "words")])
        for parts in (False, True):
            self._template.takes_parts = parts
            try:
                text = self._template.render(messages, prompt=True)
                if messages[0].content in text and not _LISTED.search(text):
                    return parts
            except BadRow:
                continue
        return False

    def _skeleton(self, messages: Sequence[Message]) -> list[_Part] | None:
        """Where words stand in all conversations with these roles; None where that depends on the words."""
        if any(not m.content or m.content[0].isspace() or m.content[-1].isspace() for m in messages):
            return None
        roles = tuple(m.role for m in messages)
        if roles not in self._skeletons:
            probe = self._look(messages)
            self._skeletons[roles] = _parts(probe) if probe else None
        return self._skeletons[roles]


def _found(template: str, tokenizer: Tokenizer) -> tuple[str, str]:
    """What to call a template in messages, and its text. Raises UserError."""
    if template in TEMPLATES:
        return template, (_FOLDER / f"{template}.jinja").read_text()
    if template == OWN:
        if not tokenizer.chat_template:
            raise UserError(f"template 'jinja': {tokenizer.path} has no chat template; {did_you_mean('', TEMPLATES)}")
        return f"{tokenizer.path}'s own", tokenizer.chat_template
    if not template.endswith(".jinja"):
        raise UserError(f"template '{template}': {did_you_mean(template, [*TEMPLATES, OWN])}, or FILE.jinja")
    file = epath.Path(template).expanduser()
    if not file.is_file():
        raise UserError(f"template '{template}': no such file")
    try:
        return template, file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"template '{template}': not UTF-8") from None


def _sentinels(messages: Sequence[Message]) -> list[Message]:
    """The same messages with words that stand nowhere else."""
    return [m._replace(content=f"qz{i:04}zq") if m.content.strip() else m for i, m in enumerate(messages)]


def _parts(probe: _Probe) -> list[_Part] | None:
    """The text of a probe in stretches; None if some words stand in it more than once."""
    words = {}
    for i, message in enumerate(probe.messages):
        if probe.text.count(message.content) != 1:
            return None
        words[probe.text.index(message.content)] = i
    turn_of = {turn.start: turn for turn in probe.turns}
    borders = {0, len(probe.text)} | {b for turn in probe.turns for b in (turn.start, turn.stop)}
    borders |= {b for start, i in words.items() for b in (start, start + len(probe.messages[i].content))}
    parts, turn = [], None
    for start, stop in itertools.pairwise(sorted(borders)):
        turn = turn_of.get(start, turn if turn and start < turn.stop else None)
        parts.append(_Part(probe.text[start:stop], words.get(start, -1), turn.message if turn else -1))
    return parts


def _any_of(texts: Iterable[str], before: str = "") -> re.Pattern[str] | None:
    """A pattern for any of the texts, the longest first."""
    escaped = [re.escape(text) for text in sorted(texts, key=len, reverse=True)]
    return re.compile(before + "(?:" + "|".join(escaped) + ")") if escaped else None
