"""Which texts stand twice: within a domain, between domains, and in the benchmarks' questions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from sftmix_jax.data.messages import Message

_GRAM = 13  # words; the length that GPT-3's authors and others since use for contamination


def normalised(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"\w+", text.lower())


def _key(words: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest()


def _text(message: Message) -> str:
    """The message's text, and what stands in its fields: calls, reasoning."""
    fields = json.dumps(dict(message.fields), sort_keys=True, ensure_ascii=False) if message.fields else ""
    return f"{message.content}\n{fields}"


def grams(text: str) -> set[bytes]:
    """Hashes of all runs of 13 words; of the whole text where it is shorter."""
    words = normalised(text)
    if not words:
        return set()
    return {_key(words[i : i + _GRAM]) for i in range(max(1, len(words) - _GRAM + 1))}


@dataclasses.dataclass
class Overlaps:
    """Counts of rows."""

    duplicates: dict[str, int]  # rows whose text stood in the domain before
    shared_prompts: dict[tuple[str, str], int]  # rows of the second domain whose first prompt stands in the first
    contaminated: dict[tuple[str, str], int]  # rows of a domain that share a 13-gram with a benchmark's question
    contaminated_where: list[str]  # the first few


def find(
    domains: Iterable[tuple[str, Iterable[tuple[str, Sequence[Message]]]]], benchmarks: dict[str, list[str]]
) -> Overlaps:
    """One pass over all conversations, (domain, [(where, messages)]); questions by benchmark."""
    asked = {name: set().union(*map(grams, questions)) for name, questions in benchmarks.items()}
    out = Overlaps({}, Counter(), Counter(), [])
    prompts: dict[str, set[bytes]] = {}
    for domain, conversations in domains:
        seen: set[bytes] = set()
        own: set[bytes] = set()
        duplicates = 0
        for where, messages in conversations:
            whole = _key([word for message in messages for word in (message.role, *normalised(_text(message)))])
            duplicates += whole in seen
            seen.add(whole)
            first = next((m.content for m in messages if m.role in ("user", "text")), "")
            prompt = _key(normalised(first))
            for other, theirs in prompts.items():
                out.shared_prompts[other, domain] += prompt in theirs
            own.add(prompt)
            mine = set().union(*(grams(_text(message)) for message in messages))
            for benchmark, theirs in asked.items():
                if mine & theirs:
                    out.contaminated[domain, benchmark] += 1
                    if len(out.contaminated_where) < 10:
                        out.contaminated_where.append(f"{where} has 13 words in a row of {benchmark}")
        out.duplicates[domain] = duplicates
        prompts[domain] = own
    return out


def questions_seen(questions: dict[str, str], conversations: Iterable[Sequence[Message]]) -> list[str]:
    """Ids of the questions that share 13 words in a row with any of the conversations."""
    askers: dict[bytes, list[str]] = {}
    for name, text in questions.items():
        for gram in grams(text):
            askers.setdefault(gram, []).append(name)
    seen = {
        name
        for messages in conversations
        for message in messages
        for gram in grams(_text(message)) & askers.keys()
        for name in askers[gram]
    }
    return [name for name in questions if name in seen]
