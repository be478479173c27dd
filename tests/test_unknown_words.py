"""What a tokenizer does not know, and what it rewrites: refused or reported, never trained in silence."""

import numpy as np
import pytest
from test_sources import write_lines
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sftmix_jax.data import cache
from sftmix_jax.data.chat import Chat
from sftmix_jax.data.sources import Source
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.machine.errors import UserError

SPECIAL = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
WORDS = ("user", "assistant", "system", "say", "zebra", "horse", "fine", "1⁄2", "caf\u00e9")


def chat(tmp_path, model=None, normalizer=None, decoder=None) -> Chat:
    """chatml with a tokenizer of words, or with one of another model."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
    backend = Backend(model or models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if normalizer:
        backend.normalizer = normalizer
    if decoder:
        backend.decoder = decoder
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    wrapped.save_pretrained(tmp_path / "tokenizer")
    return Chat("chatml", Tokenizer(str(tmp_path / "tokenizer")))


def source(tmp_path, *pairs, **settings) -> Source:
    rows = [{"prompt": asked, "response": said} for asked, said in pairs]
    return Source(write_lines(tmp_path / "rows.jsonl", rows), **settings)


def test_an_answer_with_an_unknown_word_is_refused_by_name(tmp_path):
    pairs = [("say", "zebra"), ("say", "say 数学 zebra")]
    said = r"rows\.jsonl:2: the tokenizer does not know all words of an answer, and would train '<unk>' for them, "
    with pytest.raises(UserError, match=said + r"such as '数学' \(domain 'd'\)"):
        cache.tokenized("d", source(tmp_path, *pairs), chat(tmp_path))


def test_skipped_rows_with_unknown_words_are_counted_under_one_reason(tmp_path):
    pairs = [("say", "zebra"), ("say", "say 数学"), ("say", "ox"), ("ox", "horse"), ("ox", "a zebra")]
    examples = cache.tokenized("d", source(tmp_path, *pairs, bad_rows="skip"), chat(tmp_path))
    assert len(examples) == 2 and list(examples.skipped.values()) == [3]
    assert [where.rpartition(" ")[2] for where in examples.skipped_where] == ["'数学'", "'ox'", "'a'"]
    assert not (np.asarray(examples.tokens)[np.asarray(examples.weights) > 0] == 0).any()
    assert examples.notices == [
        "the tokenizer does not know all words of 1 rows; it reads them as '<unk>' (none of them is trained on)"
    ]


def test_a_document_with_an_unknown_word_is_refused(tmp_path):
    rows = write_lines(tmp_path / "rows.jsonl", [{"text": "say zebra"}, {"text": "say ox"}])
    with pytest.raises(UserError, match=r"rows\.jsonl:2: the tokenizer does not know .*'ox'"):
        cache.tokenized("d", Source(rows), chat(tmp_path))


def test_a_unigram_model_names_its_unknown_token_by_its_id(tmp_path):
    pieces = [*((word, -1.0) for word in SPECIAL), *((f"{c}", -3.0) for c in "abehrsuyzintmo")]
    found = chat(tmp_path, models.Unigram(pieces, unk_id=0))
    assert found.tokenizer.unknown == (0, "<unk>")
    with pytest.raises(UserError, match="such as '数学'"):
        cache.tokenized("d", source(tmp_path, ("say", "zebra 数学")), found)


@pytest.mark.parametrize(
    ("normalizer", "said", "rewritten"),
    [
        (normalizers.Lowercase(), "Zebra", "Lowercase"),
        (normalizers.Lowercase(), "zebra", ""),
        (normalizers.NFKC(), "ﬁne ½".replace("½", "1⁄2"), "NFKC"),
        (normalizers.NFKC(), "fine", ""),
        (normalizers.NFC(), "cafe\u0301", ""),
        (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), "zébra", "NFD, StripAccents"),
        (normalizers.Replace("horse", "zebra"), "horse", "Replace"),
    ],
)
def test_a_normalizer_that_rewrites_answers_is_named_with_its_rows(tmp_path, normalizer, said, rewritten):
    pairs = [("Say" if rewritten == "Lowercase" else "say", "zebra")] * 250 + [("say", said)]  # beyond the decoded rows
    examples = cache.tokenized("d", source(tmp_path, *pairs), chat(tmp_path, normalizer=normalizer))
    assert examples.notices == [
        f"the tokenizer's normalizer ({rewritten}) rewrites answers: what is trained on in 1 of 251 rows does not "
        "decode to what the row says"
    ] * bool(rewritten)


def test_spaces_as_sentencepiece_writes_them_are_no_rewriting(tmp_path):
    written = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    letters = sorted({*"▁\n".join((*WORDS, "")), *"<>|_"})
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys((*SPECIAL, *letters)))}
    restored = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    found = chat(tmp_path, models.BPE(vocabulary, [], unk_token="<unk>"), written, restored)
    assert cache.tokenized("d", source(tmp_path, ("say", "zebra  say")), found).notices == []


def test_characters_that_a_tokenizer_drops_are_reported(tmp_path):
    letters = {token: i for i, token in enumerate((*SPECIAL, *"abehrsuyzintmo"))}
    found = chat(tmp_path, models.BPE(letters, []))  # without an unknown token it leaves out what it lacks
    examples = cache.tokenized("d", source(tmp_path, ("say", "zebra 数学"), ("say", "zebra")), found)
    assert examples.notices == [
        "the tokenizer rewrites answers: what is trained on in 1 of 2 rows does not decode to what the row says"
    ]
