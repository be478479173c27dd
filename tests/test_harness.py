"""lm-evaluation-harness on our sampler gives what its own `hf` backend gives."""

import pytest
from etils import epath

pytest.importorskip("torch")
pytest.importorskip("lm_eval")
pytest.importorskip("accelerate")
from lm_eval.api.instance import Instance

from sftmix_jax.evaluation import harness
from sftmix_jax.experiment.opening import Opening, open_model
from sftmix_jax.experiment.stages import TINY
from sftmix_jax.machine.errors import UserError

TEXTS = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside.",
    "Tom had a red ball. He wanted to play with it in the park, but it was raining.",
    "The cat sat on the mat. " * 60,
]


@pytest.fixture(scope="module")
def both():
    from lm_eval.models.huggingface import HFLM

    ours = harness.HarnessModel(open_model("tiny", Opening(dtype="float32"), epath.Path("unused")))
    return ours, HFLM(pretrained=str(TINY), device="cpu", dtype="float32", batch_size=1, max_length=512)


def asked(kind, arguments):
    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


def test_log_likelihoods_are_the_hf_backends(both):
    pairs = [
        (TEXTS[0], " She had a big smile."),
        (TEXTS[1], " So he stayed at home."),
        ("", "Once upon a time"),
        (TEXTS[2], " Then it slept."),
    ]
    ours, theirs = (model.loglikelihood(asked("loglikelihood", pairs)) for model in both)
    for (mine, greedy), (other, same) in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, abs=1e-3) and greedy == same


def test_rolling_log_likelihoods_are_the_hf_backends(both):
    ours, theirs = (
        model.loglikelihood_rolling(asked("loglikelihood_rolling", [(t,) for t in TEXTS])) for model in both
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, abs=1e-3)


def test_greedy_texts_are_the_hf_backends(both):
    settings = {"until": ["park", "\n\n"], "max_gen_toks": 60, "do_sample": False, "temperature": 0.0}
    requests = asked("generate_until", [(text, settings) for text in TEXTS])
    ours, theirs = (model.generate_until(requests) for model in both)
    assert ours == theirs


@pytest.mark.parametrize(
    "settings",
    [
        {"until": [], "max_new_tokens": 9},
        {"until": ["q"], "max_tokens": 7},
        {"max_completion_tokens": 5},
        {"until": "a", "max_gen_toks": 6, "max_tokens": 40},  # the first alias decides
        {"until": ["</s>"], "max_gen_toks": 30},
        {"until": ["<|im_end|>"], "max_gen_toks": 200},
        {"until": ["<|im_start|>user", "e"], "max_gen_toks": 40},
        {"until": ["\n"], "max_gen_toks": 20, "temperature": 0.7, "do_sample": False, "top_k": 5, "num_beams": 1},
        {"until": [], "max_gen_toks": 511},
    ],
)
def test_settings_of_a_request_are_read_as_the_hf_backend_reads_them(both, settings):
    chat = "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    ours, theirs = (
        model.generate_until(asked("generate_until", [(text, dict(settings)) for text in (chat, TEXTS[0])]))
        for model in both
    )
    assert ours == theirs


def test_copies_of_a_request_are_other_samples(both):
    settings = {"until": [], "max_gen_toks": 24, "do_sample": True, "temperature": 1.0}
    once, again = (asked("generate_until", [(TEXTS[0], settings), (TEXTS[1], settings)]) for _ in range(2))
    first = both[0].generate_until([once[0]] * 4 + [once[1]] * 2)
    assert len(set(first[:4])) > 1 and first[4] != first[5]
    assert both[0].generate_until([again[0]] * 4 + [again[1]] * 2) == first
    greedy = asked("generate_until", [(TEXTS[0], settings | {"do_sample": False})])
    assert len(set(both[0].generate_until(greedy * 3))) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_gen_toks": 512}, "asks for 512 new tokens"),
        ({"max_gen_toks": 4096}, "asks for 4096 new tokens"),
        ({"num_beams": 4}, "num_beams=4 is not supported"),
        ({"do_sample": True, "temperature": 1.0, "top_k": 5}, "top_k=5"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2"),
        ({"max_length": 30}, "max_length=30"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(both, settings, said):
    with pytest.raises(UserError, match=said):
        both[0].generate_until(asked("generate_until", [("a", {"until": [], "max_gen_toks": 9} | settings)]))


@pytest.mark.parametrize(
    ("metric", "value", "is_more_better", "best"),
    [
        ("acc", 0.4, True, 1),
        ("exact_match", 1.0, None, 1),
        ("mcc", -0.2, True, 1),
        ("bleu_acc", 0.4, True, 1),
        ("bleu", 0.7, True, 100),
        ("bleu_max", 31.5, True, 100),
        ("chrf++", 50.1, True, 100),
        ("f1", 80.2, True, 100),
        ("rouge1", 22.0, None, 100),
        ("bleu_diff", -3.0, True, 100),
        ("word_perplexity", 9.5, False, 0),
        ("byte_perplexity", 1.7, None, 0),
        ("ter", 60.0, False, 0),
    ],
)
def test_only_shares_are_shown_as_percent(metric, value, is_more_better, best):
    """A metric with another best than 1 is shown as it stands."""
    assert harness._best(metric, value, is_more_better) == best
