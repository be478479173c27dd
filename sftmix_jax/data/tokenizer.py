"""A tokenizer from a model folder, as little of it as the rest needs."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from sftmix_jax.errors import UserError

if TYPE_CHECKING:
    from sftmix_jax.data.messages import Message

# Tokenizer files without a config do not say which token ends a text; these are the usual ones.
_USUAL_BOS = ("<s>", "<|begin_of_text|>")
_TOKENIZER_FILES = (".json", ".jinja", ".model", ".txt")
_USUAL_EOS = ("</s>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>")


class Tokenizer:
    """Text ↔ token ids. Special tokens are written in the text by the template, never added here."""

    def __init__(self, path: str):
        self.path = path
        with tempfile.TemporaryDirectory() as local:
            self._hf = _read(path, Path(_fetched(path, local) if "://" in path else path))
        if not self._hf.is_fast:
            raise UserError(f"{path}: only fast tokenizers (tokenizer.json) tell where each token starts; convert it")
        vocabulary = self._hf.get_vocab()
        self.bos = self._hf.bos_token or next((t for t in _USUAL_BOS if t in vocabulary), "")
        self.eos = self._hf.eos_token or next((t for t in _USUAL_EOS if t in vocabulary), "")
        if not self.eos:
            raise UserError(f"{path}: has no end-of-sequence token; name it in tokenizer_config.json (eos_token)")
        self.bos_id: int | None = vocabulary.get(self.bos)
        self.eos_id: int = vocabulary[self.eos]
        self.size = max(vocabulary.values()) + 1
        self.chat_template: str | None = self._hf.chat_template
        marks = [re.escape(t.content) for t in self._hf.added_tokens_decoder.values() if t.special and t.content]
        self._control = re.compile("|".join(marks)) if marks else None

    @property
    def fingerprint(self) -> str:
        """A hash of what decides the tokens."""
        parts = (self._hf.backend_tokenizer.to_str(), self.bos, self.eos)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens are already written."""
        return self._hf.encode(text, add_special_tokens=False, verbose=False)

    def encode_plain(self, text: str) -> list[int]:
        """Token ids of a text that no template wrote, with what the tokenizer itself puts around it."""
        return self._hf.encode(text, add_special_tokens=not (self.bos and text.startswith(self.bos)), verbose=False)

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each text: token ids int32 [n] and the character at which each token starts, int64 [n]."""
        encoded = self._hf.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
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

    def control_token_in(self, text: str) -> str | None:
        """The first special token that is written out in a text, and would be read as one."""
        found = self._control.search(text) if self._control else None
        return found.group() if found else None

    def special_id(self, text: str) -> int | None:
        """The id of a special token, or None if the vocabulary has no such single token."""
        return self._hf.get_vocab().get(text)

    def render_jinja(self, messages: Sequence[Message], prompt: bool = False) -> str:
        """The conversation as the tokenizer's own template writes it."""
        rows = [{"role": m.role, "content": m.content} for m in messages]
        return self._hf.apply_chat_template(rows, tokenize=False, add_generation_prompt=prompt)

    def save(self, folder: epath.Path) -> None:
        """Write the files that transformers reads, to a disk or a bucket."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as local:
            self._hf.save_pretrained(local)
            for file in Path(local).iterdir():
                (folder / file.name).write_bytes(file.read_bytes())


def _read(path: str, folder: Path) -> Any:
    """transformers' tokenizer of a local folder or a hub id. Raises UserError, which names `path`."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that torch is missing is as it should be
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        if (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
            return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        if folder.is_dir() and not (folder / "tokenizer_config.json").is_file():
            raise UserError(f"{path}: no tokenizer.json or tokenizer_config.json in this folder")
        return AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(f"no tokenizer at {path}: {str(error).splitlines()[0]}") from None


def _fetched(path: str, local: str) -> str:
    """The tokenizer's files of a folder in a bucket, copied into a local one."""
    for file in epath.Path(path).iterdir():
        if file.suffix in _TOKENIZER_FILES and not file.name.endswith(".index.json"):
            (Path(local) / file.name).write_bytes(file.read_bytes())
    return local
