"""A config to start from: what files hold decides its domains, k and validation rows; it trains as it stands."""

import csv
import json

import pytest
from conftest import run
from test_sources import write_lines

from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment import starting
from sftmix_jax.machine.errors import UserError


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Three files of three formats; one row of the code has no answer."""
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "My math.jsonl", [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(100)])
    with (tmp_path / "code.csv").open("w") as stream:
        rows = [["instruction", "output"], *[[f"print {i}", f"print({i})"] for i in range(40)], ["nothing", ""]]
        csv.writer(stream).writerows(rows)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    (tmp_path / "chat.json").write_text(json.dumps([{"messages": turns}] * 60))
    return tmp_path


def test_domains_k_and_validation_rows_follow_from_the_files(data):
    started = starting.write(["My math.jsonl", "code.csv", "chat.json"], "tiny", "", "mine.py")
    found = experiment.read(["--config=mine.py"])
    assert list(found.domains) == ["my_math", "code", "chat"] and list(found.stages) == ["specialised", "general"]
    assert [source.validation_rows for source in found.domains.values()] == [5, 2, 3]
    assert [source.bad_rows for source in found.domains.values()] == ["refuse", "skip", "refuse"]
    replay = found.stages["general"].mixture
    assert replay["chat"].fraction == 1.0 and replay["code"].fraction == replay["my_math"].fraction == 1 / 4
    assert "1 cannot be trained on and are skipped, 1 of them: an empty answer" in started.found[1]


@pytest.mark.parametrize(
    ("paths", "general", "stages"),
    [
        (["code.csv"], "", ["code"]),
        (["code.csv", "My math.jsonl"], "", ["multitask"]),
        (["code.csv", "My math.jsonl"], "my_math", ["specialised", "general"]),
        (["code.csv", "chat.json"], "", ["specialised", "general"]),
    ],
)
def test_the_strategy_follows_from_the_domains(data, paths, general, stages):
    starting.write(paths, "tiny", general, "mine.py")
    assert list(experiment.read(["--config=mine.py"]).stages) == stages


def test_names_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_lines(tmp_path / folder / "train.jsonl", [{"question": "q", "answer": "a"}])
    starting.write(["a/train.jsonl", "b/*.jsonl", "b/train.jsonl"], "tiny", "", 'mi"ne.py')
    assert list(experiment.read(['--config=mi"ne.py']).domains) == ["train", "b", "train_2"]


@pytest.mark.parametrize(
    ("paths", "general", "out", "said"),
    [
        (["none.csv"], "", "mine.py", "no file none.csv"),
        (["code.csv"], "chatt", "mine.py", "--general chatt: no such domain"),
        (["code.csv"], "", "code.csv", "a config is a Python file"),
        (["code.csv"], "", "mine.py:k.py", "a config is a Python file"),
        (["code.csv"], "", "there.py", "is there already"),
        (["bad.jsonl"], "", "mine.py", "no row of 1 can be trained on"),
    ],
)
def test_what_cannot_be_started_from_is_refused(data, paths, general, out, said):
    (data / "there.py").write_text("")
    write_lines(data / "bad.jsonl", [{"question": "q", "answer": ""}])
    with pytest.raises(UserError) as error:
        starting.write(paths, "tiny", general, out)
    assert said in str(error.value) and not (data / "mine.py").exists()


def test_commands_are_written_for_a_shell(data):
    started = starting.write(["code.csv"], "tiny", "", "-my config.py")
    assert started.commands[1].endswith("train --config '-my config.py' --workdir 'runs/-my config'")
    assert experiment.read(["--config=-my config.py"]).name == "my_config"


def test_a_model_without_a_name_is_refused_before_any_row_is_read(data):
    with pytest.raises(UserError, match="--model names no model"):
        starting.write(["none.csv"], "hf:", "", "mine.py")


@pytest.mark.parametrize(
    ("hidden", "layers", "heads", "vocab", "rate"),
    [
        (576, 30, 9, 49_152, 1e-3),
        (2048, 24, 32, 49_152, 3e-4),
        (4096, 32, 32, 32_000, 2e-5),
    ],  # 0.2, 1.8 and 6.7 billion
)
def test_the_learning_rate_follows_from_the_models_size(data, hidden, layers, heads, vocab, rate):
    model = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "vocab_size": vocab}
    model |= {"num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": round(hidden * 2.6875)}
    (data / "model").mkdir()
    (data / "model" / "config.json").write_text(json.dumps(model | {"max_position_embeddings": 2048}))
    starting.write(["code.csv"], str(data / "model"), "", "mine.py")
    assert experiment.read(["--config=mine.py"]).stages["code"].optimizer.learning_rate == rate


@pytest.mark.slow
def test_what_is_written_trains_as_it_stands(data):
    paths = ",".join(str(data / name) for name in ("My math.jsonl", "code.csv", "chat.json"))
    ended = run("sftmix_jax.init_data", f"--data={paths}", f"--out={data / 'mine.py'}")
    assert ended.returncode == 0 and f"train --config {data / 'mine.py'} --workdir runs/mine" in ended.stdout
    ended = run("sftmix_jax.train", f"--config={data / 'mine.py'}", f"--workdir={data / 'runs'}")
    assert ended.returncode == 0, ended.stderr
    assert len(list(data.glob("runs/stages/*/done.json"))) == 2
