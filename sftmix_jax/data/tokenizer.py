"""A tokenizer from a model folder, as little of it as the rest needs."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from sftmix_jax.machine import model_folder
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import matching

# Tokenizer files without a config do not say which token ends a text; these are the usual ones.
_USUAL_BOS = ("<s>", "<|begin_of_text|>")
_TOKENIZER_FILES = (".json", ".jinja", ".model", ".txt")
_SPECIAL_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_SPACES = re.compile(r"[\s▁]+")  # what SentencePiece adds, joins or writes as ▁
# Of tokenizer_config.json; the first four are added by transformers where tokenizer.json stores truncation or padding
_NOT_OBEYED = (
    "max_length",
    "stride",
    "truncation_strategy",
    "pad_to_multiple_of",
    "split_special_tokens",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
)
_USUAL_EOS = ("</s>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>")


class Tokenizer:
    """Text ↔ token ids. Special tokens are written in the text by the template, never added here.

    What tokenizer.json says of truncation, padding and dropout is not obeyed: a text has one encoding, whole.
    """

    def __init__(self, path: str):
        self.path = path
        with tempfile.TemporaryDirectory() as local:
            self._hf, self._backend = _read(path, local)
        vocabulary = self._backend.get_vocab()
        self.bos = self._hf.bos_token or next((t for t in _USUAL_BOS if t in vocabulary), "")
        self.eos = self._hf.eos_token or next((t for t in _USUAL_EOS if t in vocabulary), "")
        if not self.eos:
            raise UserError(f"{path}: has no end-of-sequence token; name it in tokenizer_config.json (eos_token)")
        if self.eos not in vocabulary:
            raise UserError(f"{path}: its end-of-sequence token '{self.eos}' is not in its vocabulary")
        self.bos_id: int | None = vocabulary.get(self.bos)
        self.eos_id: int = vocabulary[self.eos]
        self.pad_id: int | None = vocabulary.get(self._hf.pad_token)
        self.size = max(vocabulary.values()) + 1
        self.chat_template = _one_template(path, self._hf.chat_template)
        added = self._hf.added_tokens_decoder
        self.special = {t.content for t in added.values() if t.special and t.content}
        self._special_ids = {i for i, t in added.items() if t.special}
        ordered = sorted((t.content for t in added.values() if t.content), key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        parts = (self._backend.to_str(), self.bos, self.eos)
        self.fingerprint = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]  # of what decides the tokens

    def check_size(self, vocab_size: int, remedy: str) -> None:
        """Raises UserError if there is a token that a model of `vocab_size` has no row for.

        transformers adds a special token that the vocabulary lacks behind it, and says nothing.
        """
        beyond = sorted((i, token) for token, i in self._backend.get_vocab().items() if i >= vocab_size)
        if not beyond:
            return
        if beyond[0][1] in self.special and (stated := self._statement(beyond[0][1])):
            raise UserError(f"{stated}, which is none of the model's {vocab_size} tokens; name one of them, or none")
        raise UserError(f"{self.path}: the tokenizer has {self.size} tokens, the model {vocab_size}; {remedy}")

    def difference(self, own: Tokenizer) -> str:
        """In which way a model with the tokenizer `own` would read other tokens here; empty if it reads the same."""
        if self.fingerprint == own.fingerprint:
            return ""
        mine, theirs = ({i: token for token, i in each._backend.get_vocab().items()} for each in (self, own))
        others = sorted(i for i in mine if theirs.get(i, mine[i]) != mine[i])
        if not others:
            return "it splits texts, or adds tokens, in another way"
        first = others[0]
        example = f"{first} is {mine[first]!a}, not {theirs[first]!a}"
        return f"{len(others):,} of its {len(mine):,} ids are other tokens ({example})"

    def _statement(self, token: str) -> str:
        """Which field of which file names a token: `FILE: FIELD is VALUE`; empty if none does."""
        folder = model_folder.find(self.path, weights=False)
        for file in (folder / name for name in _SPECIAL_FILES):
            for field, value in model_folder.read_object(file).items() if file.exists() else ():
                if json.dumps(token) in json.dumps(value):
                    return f"{file}: {field} is {model_folder.short(value)}"
        return ""

    @property
    def special_tokens(self) -> dict[str, str]:
        """Special tokens by the names under which templates know them: bos_token, eos_token, …"""
        named = {name: str(token) for name, token in self._hf.special_tokens_map.items() if isinstance(token, str)}
        return {**named, "bos_token": self.bos, "eos_token": self.eos}

    @cached_property
    def begin_ids(self) -> tuple[int, ...]:
        """What the tokenizer itself puts before a text.

        Every text that no chat template wrote begins with it: raw prompts, documents, lm-eval's. The built-in chat
        templates begin with it too. Empty where the tokenizer adds nothing, whatever its bos_token is.
        """
        plain = self._backend.encode("a", add_special_tokens=False).ids
        whole = self._backend.encode("a", add_special_tokens=True).ids
        starts = [i for i in range(len(whole)) if whole[i : i + len(plain)] == plain]
        return tuple(whole[: starts[0]]) if starts else ()

    @property
    def begin(self) -> str:
        """`begin_ids` as text."""
        return "".join(self._backend.id_to_token(i) for i in self.begin_ids)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens are already written."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a text that no template wrote, with what the tokenizer itself puts before it."""
        written = self.begin and text.startswith(self.begin)
        return [*(() if written else self.begin_ids), *self.encode(text)]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each text: token ids int32 [n] and the character at which each token starts, int64 [n]."""
        encoded = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [
            (np.array(e.ids, np.int32), np.array([start for start, _ in e.offsets], np.int64).reshape(-1))
            for e in encoded
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; special tokens are left out."""
        return self._hf.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def decode_whole(self, ids: Sequence[int]) -> str:
        """Text of token ids with the special tokens."""
        return self._hf.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    @cached_property
    def unknown(self) -> tuple[int, str] | None:
        """The token that stands for what the vocabulary lacks, id and text; None where there is none."""
        model = json.loads(self._backend.to_str())["model"]
        token, number = model.get("unk_token"), model.get("unk_id")  # Unigram has an id
        number = self._backend.token_to_id(token) if token else number
        return None if number is None else (number, self._backend.id_to_token(number))

    def unknown_in(self, text: str) -> str:
        """The first word of a text that the vocabulary lacks; empty where it lacks none."""
        encoded = self._backend.encode(text, add_special_tokens=False)
        spans = [
            span for i, span in zip(encoded.ids, encoded.offsets, strict=True) if self.unknown and i == self.unknown[0]
        ]
        return text[slice(*spans[0])].strip() if spans else ""

    @cached_property
    def normalizers(self) -> list[str]:
        """What the tokenizer applies to a text before it splits it, by the names of the tokenizers package."""
        stored = json.loads(self._backend.to_str())["normalizer"] or {}
        return [each["type"] for each in stored.get("normalizers", [stored]) if each]

    def normalizes(self, text: str) -> bool:
        """Whether the normalizers make another text of it, apart from spaces and Unicode's canonical form."""
        return bool(self.normalizers) and not _same(self._backend.normalizer.normalize_str(text), text)

    def rewrites(self, text: str) -> bool:
        """Whether the tokens of a text decode to another one, apart from spaces and Unicode's canonical form."""
        return not _same(self.decode_whole(self.encode(text)), text)

    def first_added_token(self, text: str) -> tuple[int | None, str]:
        """The first token of the vocabulary's added ones that is written out in a text, and the text before it."""
        found = self._added.search(text) if self._added else None
        if not found:
            return None, text.strip()
        return self._backend.token_to_id(found.group()), text[: found.start()].strip()

    def special_ids_in(self, text: str) -> list[int]:
        """The special tokens of a text."""
        return [i for i in self.encode(text) if i in self._special_ids]

    def save(self, folder: epath.Path, chat_template: str | None = None) -> None:
        """Write the files that transformers reads, to a disk or a bucket, with this chat template if one is given.

        Without what is not obeyed here, as other programs would obey it: truncation, padding, dropout, special tokens
        that are split, and spaces that are cleaned up.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as local:
            saved = copy.deepcopy(self._hf)
            saved.bos_token, saved.eos_token = self.bos or None, self.eos
            if chat_template is not None:
                saved.chat_template = chat_template
            for name in _NOT_OBEYED:
                saved.init_kwargs.pop(name, None)
            saved.split_special_tokens = saved.clean_up_tokenization_spaces = False
            saved.save_pretrained(local)
            _settled(saved).save(f"{local}/tokenizer.json")
            for file in Path(local).iterdir():
                (folder / file.name).write_bytes(file.read_bytes())


def _same(one: str, other: str) -> bool:
    one, other = (_SPACES.sub("", unicodedata.normalize("NFC", text)) for text in (one, other))
    return one == other


def _settled(hf: Any) -> Any:
    """A copy of the backend without truncation, padding, dropout, or special tokens read as words."""
    backend = copy.deepcopy(hf.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = False
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
    return backend


def _one_template(path: str, template: Any) -> str | None:
    """A tokenizer's chat template; of several named ones, that for tools where there are tools, else the default."""
    texts = template.values() if isinstance(template, dict) else [template or ""]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{path}: its chat template must be text, or an object of named texts")
    if not isinstance(template, dict):
        return template or None
    if "default" not in template:
        raise UserError(
            f"{path}: has chat templates {', '.join(sorted(template))} and no default; write the one that you mean "
            "into a file and set --config.template=FILE.jinja"
        )
    default = template["default"].removesuffix("\n")
    if "tool_use" not in template:
        return default
    return f"{{% if tools %}}\n{template['tool_use'].removesuffix(chr(10))}{{% else %}}\n{default}{{% endif %}}"


def _read(path: str, local: str) -> tuple[Any, Any]:
    """transformers' tokenizer of a folder or hub id, and its backend; `local`: where a bucket's files are copied to.

    Code in the folder is never run. Raises UserError, which names `path`.
    """
    found = model_folder.find(path, weights=False)
    folder = Path(_copied(found, local) if "://" in path else found)
    configured = (folder / "tokenizer_config.json").is_file()
    if not configured and not (folder / "tokenizer.json").is_file():
        raise UserError(f"{path}: no tokenizer.json or tokenizer_config.json in this folder")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # torch is not needed here
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    template = folder / "chat_template.jinja"
    try:
        if configured:
            hf = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        else:
            hf = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
            hf.chat_template = template.read_text() if template.is_file() else None
        if not hf.is_fast:
            raise UserError(f"{path}: only fast tokenizers (tokenizer.json) tell where each token starts; convert it")
        # transformers sets truncation and padding on its backend with every call; this one nobody else calls.
        return hf, _settled(hf)
    except BaseException as error:  # values of a wrong type raise anything in there, panics of Rust among them
        if isinstance(error, KeyboardInterrupt | SystemExit | UserError):
            raise
        if field := _bad_field(folder):
            raise UserError(f"{path}/config.json: {field}, which transformers cannot read; correct it") from None
        reason = (str(error) or "no reason given").splitlines()[0]
        raise UserError(f"{path}: its tokenizer cannot be read ({type(error).__name__}: {reason})") from None


def _bad_field(folder: Path) -> str:
    """The field of config.json without which transformers reads it, `NAME is VALUE`; empty if it reads it as it is.

    transformers looks for the tokenizer's class in there, and checks every field when it does.
    """
    from transformers import AutoConfig

    file = epath.Path(folder) / "config.json"
    record = model_folder.read_object(file) if file.exists() else {}
    with tempfile.TemporaryDirectory() as local:

        def is_read(fields: dict[str, Any]) -> bool:
            (Path(local) / "config.json").write_text(json.dumps(fields))
            try:
                AutoConfig.from_pretrained(local, trust_remote_code=False)
            except Exception:
                return False
            return True

        if not record or is_read(record):
            return ""
        for name in record:
            others = {key: value for key, value in record.items() if key != name}
            if is_read({"model_type": "llama", **others}):
                return f"{name} is {model_folder.short(record[name])}"
    return "several of its fields are of a wrong type"


def _copied(folder: epath.Path, local: str) -> str:
    """The tokenizer's files of a folder in a bucket, copied into a local one."""
    for file in matching(folder, "*"):
        if file.suffix in _TOKENIZER_FILES and not file.name.endswith(".index.json"):
            (Path(local) / file.name).write_bytes(file.read_bytes())
    return local
