"""The recipe of the bundled tokenizer: byte-level BPE, digits one by one, ChatML's marks as tokens.

python -m sftmix_jax.tiny.tokenizer DIR
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sftmix_jax.tiny import domains

VOCABULARY = 1536
_SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def texts() -> Iterator[str]:
    """What the vocabulary is learned from: every domain's training text."""
    for row in itertools.islice(domains.train_rows("corpus"), 20_000):
        yield row["text"]
    for row in domains.train_rows("math", 4000):
        yield row["question"] + "\n" + row["answer"]
    for row in domains.train_rows("code", 4000):
        yield row["prompt"] + "\n" + row["completion"]
    for row in domains.train_rows("general", 4000):
        yield "\n".join(message["content"] for message in row["messages"])
    yield "system\nuser\nassistant\ntool\n" * 100


def build(folder: Path) -> None:
    """Learn the vocabulary and write the tokenizer as transformers reads it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    words = Regex(r"\d| ?[A-Za-z]+|\n| ?[^\sA-Za-z\d]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=_SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(texts(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = _CHATML
    fast.save_pretrained(folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
