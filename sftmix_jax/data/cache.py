"""Tokenised sources on disk, memory-mapped: a second start tokenises nothing.

A cache folder is used only if its manifest names its fingerprint and every file matches its checksum. Any other is
reported and built again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from etils import epath

from sftmix_jax.data import sources
from sftmix_jax.data.chat import Chat, Rendering
from sftmix_jax.data.copies import Copies
from sftmix_jax.data.messages import BadRow, LeftOut
from sftmix_jax.data.sources import Source
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.machine import files, manifest, processes, terminal
from sftmix_jax.machine.errors import UserError

_FORMAT = 6  # part of every key: raise it when tokens or weights would change
_CHUNK = 1024  # rows in memory at a time
_SKIPPED_SHOWN = 20
_DECODED = 200  # rows whose tokens are decoded, to see whether they say what the row does


@dataclasses.dataclass(frozen=True)
class Examples:
    """One domain's tokenised conversations; arrays are memory-mapped."""

    fingerprint: str  # of source, template and tokenizer
    content: str  # checksums of the three arrays
    tokens: np.ndarray  # uint16 or uint32 [total]
    weights: np.ndarray  # float32 [total]: what each token's loss is multiplied by; 0: not trained on
    offsets: np.ndarray  # int64 [n + 1]: example i is tokens[offsets[i]:offsets[i + 1]]
    rows: int  # as stored, skipped ones too
    skipped: dict[str, int]  # reason → rows
    skipped_where: list[str]  # the first few, "place: reason"
    unused: dict[str, int]  # name of a field that has no meaning for training → rows that have it
    notices: list[str]  # what the user may not expect: of the tokenizer, and of files that are copies

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def example(self, index: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and loss weights of an example, at most `length` of them."""
        start = int(self.offsets[index])
        stop = min(int(self.offsets[index + 1]), start + length)
        return self.tokens[start:stop], self.weights[start:stop]

    def lengths(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """For each example cut to `length`: its tokens, and those that are trained on, int64 [n] each.

        The first token has nothing before it that could predict it and never counts as trained on.
        """
        starts, sizes = self.offsets[:-1], np.diff(self.offsets)
        kept = np.minimum(sizes, length)
        # Sum over [start + 1, start + kept): pairs of borders, every second sum thrown away.
        borders = np.stack([starts + 1, starts + kept], axis=1).reshape(-1)
        padded = np.concatenate([self.weights > 0, np.zeros(1, bool)])
        trained = np.add.reduceat(padded, np.minimum(borders, len(self.weights)), dtype=np.int64)[::2]
        return kept, np.where(kept > 1, trained, 0)


def cache_root() -> Path:
    """$SFTMIX_CACHE, else the user's cache folder."""
    return Path(os.environ.get("SFTMIX_CACHE") or Path.home() / ".cache" / "sftmix_jax")


def tokenized(name: str, source: Source, chat: Chat, content: str = "") -> Examples:
    """The domain's examples, from the cache or made now; `content`: the source's fingerprint, where it is known.

    Raises UserError for an unreadable source, a refused row, or a template that marks nothing.
    """
    content = content or sources.fingerprint(source)
    key = "\0".join((str(_FORMAT), content, chat.fingerprint, chat.tokenizer.fingerprint))
    fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = epath.Path(cache_root()) / "tokens" / fingerprint
    of = {"source": fingerprint}
    problem = manifest.damage(folder, of)
    if problem is None:
        return _opened(Path(folder), fingerprint)
    if files.exists(folder):
        terminal.err(f"token cache {folder}: {problem}; domain '{name}' is tokenised again")
    building = _building_folder(folder)
    try:
        _build(name, source, chat, building)
        manifest.seal(epath.Path(building), of)
        examples = _opened(building, fingerprint)  # stays readable wherever the folder goes
        if building.parent == Path(folder).parent:
            manifest.install(epath.Path(building), folder, of)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return examples


def for_all_processes(domains: dict[str, Source], chat: Chat) -> dict[str, Examples]:
    """`tokenized` of each domain. Each source is hashed by one process; all must call this with the same domains.

    Raises UserError as `tokenized` does, and if a process reads other rows than process 0.
    """
    contents = processes.divided(lambda name: sources.fingerprint(domains[name]), list(domains))
    found = {
        name: tokenized(name, domains[name], chat, content) for name, content in zip(domains, contents, strict=True)
    }
    sums = [json.loads(text) for text in processes.all_say(json.dumps([each.content for each in found.values()]))]
    for name, of_each in zip(found, zip(*sums, strict=True), strict=True):
        other = [str(index) for index, one in enumerate(of_each) if one != of_each[0]]
        if other:
            _forget(found[name])
            raise UserError(
                f"{domains[name].path}: process {', '.join(other)} reads other rows than process 0 (domain "
                f"'{name}'); copy the same files to every host, or to storage that they share"
            )
    return found


def _forget(examples: Examples) -> None:
    """Removes what is not known to be of the fingerprint that it stands under."""
    files.remove(epath.Path(cache_root()) / "tokens" / examples.fingerprint)


def _building_folder(folder: epath.Path) -> Path:
    """A new folder beside the cache's, or a temporary one where nothing can be written there."""
    building = Path(files.unfinished(folder))
    try:
        shutil.rmtree(building, ignore_errors=True)  # of an ended process with the same number
        building.mkdir(parents=True)
        return building
    except OSError as error:
        terminal.err(
            f"token cache {folder.parent}: cannot be written ({error.strerror}); the tokens are not kept. Set "
            "SFTMIX_CACHE to a folder that can be written"
        )
        return Path(tempfile.mkdtemp(prefix="sftmix_jax."))


def _opened(folder: Path, fingerprint: str) -> Examples:
    meta = json.loads((folder / "meta.json").read_text())
    return Examples(
        fingerprint,
        manifest.sums(epath.Path(folder), ("tokens.bin", "weights.bin", "offsets.npy")),
        np.memmap(folder / "tokens.bin", meta["dtype"], "r"),
        np.memmap(folder / "weights.bin", np.float32, "r"),
        np.load(folder / "offsets.npy"),
        meta["rows"],
        meta["skipped"],
        meta["skipped_where"],
        meta["unused"],
        meta["notices"],
    )


def _build(name: str, source: Source, chat: Chat, folder: Path) -> None:
    dtype = np.uint16 if chat.tokenizer.size <= 1 << 16 else np.uint32
    sizes: list[int] = []
    skipped: Counter[str] = Counter()
    skipped_where: list[str] = []
    unused: Counter[str] = Counter()
    rows = trained = 0
    reading, copies = _Reading(chat.tokenizer), Copies()
    documents = False  # raw text is trained on whole, and that is right

    def skip(where: str, reason: BadRow, example: str = "") -> None:
        if source.bad_rows != "skip" and not isinstance(reason, LeftOut):
            raise UserError(
                f"{where}: {reason}{example} (domain '{name}'). Mend the row, or set "
                f"--config.domains.{name}.bad_rows=skip to leave such rows out; they are counted"
            )
        skipped[str(reason)] += 1
        if len(skipped_where) < _SKIPPED_SHOWN:
            skipped_where.append(f"{where}: {reason}{example}")

    with (folder / "tokens.bin").open("wb") as tokens_file, (folder / "weights.bin").open("wb") as weights_file:
        conversations = sources.read_conversations(source)
        while chunk := list(itertools.islice(conversations, _CHUNK)):
            rows += len(chunk)
            rendered: list[tuple[str, Rendering]] = []
            for where, conversation in chunk:
                if isinstance(conversation, BadRow):
                    skip(where, conversation)
                    continue
                unused.update(conversation.unused)
                documents |= conversation.messages[0].role == "text"
                try:
                    rendering = chat.pieces(conversation.messages, conversation.tools)
                except BadRow as reason:
                    skip(where, reason)
                else:
                    rendered.append((where, rendering))
                    unused.update(rendering.left_out)
            encoded = chat.encode([rendering for _, rendering in rendered])
            for (where, rendering), (ids, weights) in zip(rendered, encoded, strict=True):
                try:
                    reading.check(rendering, ids, weights)
                except BadRow as reason:
                    word = reading.unknown_word(rendering)
                    skip(where, reason, f", such as {word!r}" if word else "")
                    continue
                sizes.append(len(ids))
                trained += int((weights > 0).sum())
                example = ids.astype(dtype).tobytes(), weights.astype(np.float32).tobytes()
                tokens_file.write(example[0])
                weights_file.write(example[1])
                copies.add(where, b"".join(example))
    total = sum(sizes)
    if not sizes:
        raise UserError(f"{source.path}: none of its {rows} rows can be used: {'; '.join(skipped_where[:3])}")
    if trained == 0 or (trained == total and not documents):
        what = "nothing" if trained == 0 else "every token"
        raise UserError(f"{source.path}: the template {chat.name} marks {what} as trained on; choose another template")
    np.save(folder / "offsets.npy", np.cumsum([0, *sizes], dtype=np.int64))
    meta = {
        "dtype": np.dtype(dtype).name,
        "rows": rows,
        "skipped": skipped,
        "skipped_where": skipped_where,
        "unused": unused,
        "notices": [*reading.notices(), *copies.notices()],
        "source": dataclasses.asdict(source),
        "template": chat.name,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1))


class _Reading:
    """What a tokenizer makes of a domain's rows: words that it does not know, and words that it rewrites."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._rows = self._unknown = self._rewritten = 0

    def check(self, rendering: Rendering, ids: np.ndarray, weights: np.ndarray) -> None:
        """Counts a row. Raises BadRow where a token that is trained on stands for a word that is not known."""
        unknown = self._tokenizer.unknown
        found = ids == unknown[0] if unknown else np.zeros(len(ids), bool)
        if unknown and (found & (weights > 0)).any():
            raise BadRow(f"the tokenizer does not know all words of an answer, and would train '{unknown[1]}' for them")
        self._rows += 1
        self._unknown += int(found.any())
        for words in _trained_words(rendering):
            # With normalizers each row that they change is decoded; what else changes words does so in the first rows
            if (self._rows <= _DECODED or self._tokenizer.normalizes(words)) and self._tokenizer.rewrites(words):
                self._rewritten += 1
                break

    def unknown_word(self, rendering: Rendering) -> str:
        """A word that is trained on and not known; empty where none is found apart from its row."""
        return next(filter(None, map(self._tokenizer.unknown_in, _trained_words(rendering))), "")

    def notices(self) -> list[str]:
        """A line for each kind of change that was counted."""
        found, normalizers = [], ", ".join(self._tokenizer.normalizers)
        if self._unknown and self._tokenizer.unknown:
            found.append(
                f"the tokenizer does not know all words of {self._unknown:,} rows; it reads them as "
                f"'{self._tokenizer.unknown[1]}' (none of them is trained on)"
            )
        if self._rewritten:
            by = f"the tokenizer's normalizer ({normalizers})" if normalizers else "the tokenizer"
            of = self._rows if normalizers else min(self._rows, _DECODED)
            found.append(
                f"{by} rewrites answers: what is trained on in {self._rewritten:,} of {of:,} rows does not decode to "
                "what the row says"
            )
        return found


def _trained_words(rendering: Rendering) -> list[str]:
    return [piece.text for piece in rendering.pieces if piece.weight > 0]
