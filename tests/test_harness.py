"""lm-evaluation-harness on our sampler gives what its own `hf` backend gives."""

import pytest
from etils import epath

pytest.importorskip("torch")
pytest.importorskip("lm_eval")
pytest.importorskip("accelerate")
from lm_eval.api.instance import Instance

from sftmix_jax.evaluation import harness
from sftmix_jax.opening import Opening, open_model

TEXTS = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside.",
    "Tom had a red ball. He wanted to play with it in the park, but it was raining.",
    "The cat sat on the mat. " * 60,
]


@pytest.fixture(scope="module")
def both():
    from conftest import SHARED
    from lm_eval.models.huggingface import HFLM

    folder = SHARED / "models" / "stories260k"
    if not folder.is_dir():
        pytest.skip("no ../shared beside the project")
    ours = harness.HarnessModel(open_model(str(folder), Opening(dtype="float32"), epath.Path("unused")))
    return ours, HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1, max_length=512)


def asked(kind, arguments):
    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


def test_log_likelihoods_are_the_hf_backends(both):
    pairs = [(TEXTS[0], " She had a big smile."), (TEXTS[1], " So he stayed at home."), ("", "Once upon a time"),
             (TEXTS[2], " Then it slept.")]  # fmt: skip
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
