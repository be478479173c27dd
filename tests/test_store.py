"""What a workdir holds is verified before use, and what is damaged is named and made again."""

import contextlib
import dataclasses
import functools
import json
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from sftmix_jax.analysis import results
from sftmix_jax.experiment import config as experiment
from sftmix_jax.experiment import opening, stage_training, stages
from sftmix_jax.experiment import runner as experiments
from sftmix_jax.experiment.config import ModelConfig
from sftmix_jax.machine import array_hash, files, manifest
from sftmix_jax.machine.errors import UserError
from sftmix_jax.training.checkpoints import Checkpoints
from sftmix_jax.training.step import TrainState
from sftmix_jax.workdir import records
from tests.campaigns import _scratch as scratch
from tests.campaigns import checkpoint_faults as faults


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished experiment of two stages: its config, workdir and stage folders' names."""
    root = tmp_path_factory.mktemp("store")
    config = scratch.experiment(scratch.save_model(root / "model"))
    with pytest.MonkeyPatch.context() as patch:
        one = functools.partial(experiment.make_mesh, devices=jax.devices()[:1])
        patch.setattr(experiment, "make_mesh", one)
        patch.setattr(stage_training, "make_trainer", scratch.compiled_once(stage_training.make_trainer))
        with scratch.quiet():
            names = [Path(folder).name for folder in experiments.run(config, epath.Path(root / "whole"))]
        yield config, root / "whole", names


@pytest.fixture
def copied(whole, tmp_path):
    config, workdir, names = whole
    shutil.copytree(workdir, tmp_path / "w")
    return config, tmp_path / "w", tmp_path / "w" / "stages" / names[0], tmp_path / "w" / "stages" / names[1]


def params_sha256(stage: Path) -> str:
    return json.loads((stage / "done.json").read_text())["params_sha256"]


def train_again(config, workdir) -> str:
    with scratch.quiet() as said:
        experiments.run(config, epath.Path(workdir))
    return said.getvalue()


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))


def largest(folder: Path) -> Path:
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def test_a_finished_stage_with_a_damaged_checkpoint_is_refused_and_trained_again(copied):
    config, workdir, first, second = copied
    wanted = {stage: params_sha256(stage) for stage in (first, second)}
    flip(largest(first / "checkpoints" / "6" / "params"))
    with pytest.raises(UserError, match=r"after step 6, cannot be used.*Run the same train command again"):
        scratch.open_params(first)
    said = train_again(config, workdir)
    assert "was finished but is damaged" in said and "second" in said
    assert {stage: params_sha256(stage) for stage in wanted} == wanted
    assert scratch.open_params(first) == wanted[first]
    assert not (first / "done.json.damaged").exists()
    assert train_again(config, workdir).count("done already") == 2


def test_parameters_that_done_json_does_not_name_are_refused(copied):
    """A checkpoint of another stage, with a manifest that fits: only the hash of the parameters tells."""
    config, workdir, first, second = copied
    wanted = params_sha256(first)
    shutil.rmtree(first / "checkpoints" / "6" / "params")
    shutil.copytree(second / "checkpoints" / "6" / "params", first / "checkpoints" / "6" / "params")
    of = json.loads((first / "checkpoints" / "6" / "manifest.json").read_text())["of"]
    manifest.seal(epath.Path(first / "checkpoints" / "6"), of)
    with pytest.raises(UserError, match=f"done.json says {wanted[:12]}"):
        scratch.open_params(first)
    train_again(config, workdir)
    assert scratch.open_params(first) == wanted


def test_a_checkpoint_of_another_stage_or_step_is_not_used(copied):
    config, workdir, first, second = copied
    wanted = params_sha256(second)
    shutil.rmtree(second / "checkpoints" / "6")
    shutil.copytree(first / "checkpoints" / "6", second / "checkpoints" / "6")
    shutil.copytree(second / "checkpoints" / "3", second / "checkpoints" / "5")
    (second / "done.json").unlink()
    said = train_again(config, workdir)
    assert said.count("set aside as") == 2 and "not of stage" in said and "not of" in said
    assert params_sha256(second) == wanted


@pytest.mark.parametrize("record", ["done.json", "stage.json"])
def test_damaged_records_of_a_stage_are_named_and_written_again(copied, record):
    config, workdir, first, _ = copied
    wanted, sound = params_sha256(first), (first / record).read_bytes()
    for harm in (
        faults.text("[]"),
        faults.text("null"),
        faults.field_missing,
        faults.wrong_type,
        faults.flip,
        faults.half,
    ):
        (first / record).write_bytes(sound)
        harm(first / record, random.Random(3))
        with pytest.raises(UserError, match=rf"{record}.*run the same train command again"):
            opening.open_stage(epath.Path(first), opening.Opening())
    train_again(config, workdir)
    assert scratch.open_params(first) == wanted == params_sha256(first)


def test_a_record_of_another_stage_is_refused(copied):
    _, _, first, second = copied
    shutil.copy(second / "done.json", first / "done.json")
    with pytest.raises(UserError, match=r"done\.json: is of the stage"):
        scratch.open_params(first)


@pytest.mark.parametrize("record", ["done.json", "stage.json", "both"])
def test_a_record_that_was_copied_over_names_both_stages_and_is_written_again(copied, record):
    config, workdir, first, second = copied
    wanted = params_sha256(first)
    ids = [folder.name.rpartition("-")[2] for folder in (first, second)]
    names = ["done.json", "stage.json"] if record == "both" else [record]
    for name in names:
        shutil.copy(second / name, first / name)
    said = rf"{names[-1]}: is of the stage {ids[1]}, and this is {ids[0]}: it was copied here; run the same train"
    with pytest.raises(UserError, match=said) as error:
        opening.open_stage(epath.Path(first), opening.Opening())
    assert "\n" not in str(error.value)
    if "done.json" in names:
        with pytest.raises(UserError, match=rf"done\.json: is of the stage {ids[1]}, and this is {ids[0]}"):
            results.read_done(epath.Path(first))
    retrained = train_again(config, workdir)
    assert "it was copied here" in retrained and "other parameters" not in retrained
    assert not (first / "done.json.damaged").exists()
    assert scratch.open_params(first) == wanted == params_sha256(first)


def test_a_stage_without_its_record_names_the_remedy(copied):
    config, workdir, first, _ = copied
    wanted = params_sha256(first)
    (first / "stage.json").unlink()
    with pytest.raises(UserError, match=r"no stage\.json\); name another, or run the same train command again"):
        opening.one_stage(epath.Path(workdir), first.name)
    train_again(config, workdir)
    assert scratch.open_params(first) == wanted


def test_a_stage_whose_name_was_changed_is_found_and_said(copied, capsys):
    _, workdir, first, _ = copied
    record = json.loads((first / "stage.json").read_text())
    name, record["name"] = record["name"], "other"
    (first / "stage.json").write_text(json.dumps(record))
    for wanted in ("other", name, record["id"], first.name):
        assert opening.stage_folders(epath.Path(workdir), wanted) == [epath.Path(first)]
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"note: {first / 'stage.json'}: its name is 'other', which is not that of its folder")


def test_a_stage_s_folder_may_be_copied_out_of_its_workdir_under_any_name(copied, tmp_path):
    _, _, first, _ = copied
    own = shutil.copytree(first, tmp_path / "mine-0123456789ab")
    assert stages.read_stage(epath.Path(own))["id"] == first.name.rpartition("-")[2]


def test_two_folders_of_one_stage_are_refused(copied):
    config, workdir, first, _ = copied
    backup = shutil.copytree(first, first.with_name(f"backup-{first.name.rpartition('-')[2]}"))
    said = f"{backup.name} and {first.name} are the same stage"
    with pytest.raises(UserError, match=said):
        train_again(config, workdir)
    with pytest.raises(UserError, match=said):
        opening.stage_folders(epath.Path(workdir))
    shutil.move(backup, workdir / backup.name)  # as the message advises
    assert "done already" in train_again(config, workdir)
    assert len(opening.stage_folders(epath.Path(workdir))) == 3  # with the base


@pytest.mark.parametrize("name", ["best", "first-0123456789ab", "first-ID.bak"])
def test_a_renamed_stage_is_named_and_found_again_under_its_name(copied, name):
    config, workdir, first, second = copied
    renamed = first.rename(first.with_name(name))
    with pytest.raises(UserError, match=f"{name}: holds the finished stage {first.name} under another name"):
        train_again(config, workdir)
    if name.startswith("first-0"):
        with pytest.raises(UserError, match=f"if it was renamed, name it {first.name} again"):
            opening.stage_folders(epath.Path(workdir))
    assert second.exists() and not first.exists()
    renamed.rename(first)
    assert train_again(config, workdir).count("done already") == 2


def test_a_changed_tokenizer_is_refused_and_written_again(copied):
    config, workdir, first, _ = copied
    file = first / "tokenizer" / "tokenizer_config.json"
    sound = file.read_bytes()
    file.write_bytes(sound + b" ")
    with pytest.raises(UserError, match=r"tokenizer_config\.json has changed since it was saved; run the same train"):
        opening.open_stage(epath.Path(first), opening.Opening())
    assert "written again" in train_again(config, workdir)
    assert file.read_bytes() == sound and scratch.open_params(first)


def test_a_base_whose_model_has_changed_is_refused(copied):
    _, workdir, *_ = copied
    base = next((workdir / "stages").glob("base-*"))
    record = json.loads((base / "stage.json").read_text()) | {"init": f"hf:{stages.TINY}"}
    with pytest.raises(UserError, match="has changed since it was written"):
        (base / "stage.json").write_text(json.dumps(record))
        opening.open_stage(epath.Path(base), opening.Opening())
    (base / "stage.json").write_text(json.dumps(record | {"digest": stages.stage_digest(record)}))
    with pytest.raises(UserError, match=r"its model .* has changed since"):
        opening.open_stage(epath.Path(base), opening.Opening())


def test_a_stage_is_a_base_model_only_once_it_is_finished(copied):
    _, workdir, first, _ = copied
    assert stages.find_base(f"stage:{first}", "", 0).fingerprint in first.name
    (first / "done.json").unlink()
    with pytest.raises(UserError, match=r"not finished \(it has no done.json\)"):
        stages.find_base(f"stage:{first}", "", 0)
    base = next((workdir / "stages").glob("base-*"))
    with pytest.raises(UserError, match="is a base and holds no weights; set it to hf:"):
        stages.find_base(f"stage:{base}", "", 0)


def test_a_stage_with_parameters_that_are_no_numbers_is_no_base_and_answers_nothing(copied):
    """As a version that did not look at the parameters before it saved them may have left one."""
    config, workdir, first, second = copied
    record, done = (json.loads((second / f"{name}.json").read_text()) for name in ("stage", "done"))
    abstract = stages.on_one_device(stages.architecture(record))
    params = stages.stage_params(epath.Path(second), abstract)
    params["layers"]["up"] = params["layers"]["up"].at[1, 0, 0].set(float("nan"))
    shutil.rmtree(second / "checkpoints")
    saves = Checkpoints(epath.Path(second / "checkpoints"), stage=record["id"])
    saves.save(6, TrainState(params, {"count": np.zeros(1)}), {"seconds": 0.0, "ledger": done["ledger"]})
    saves.close()
    done["params_sha256"] = array_hash.tree_digest(params)
    (second / "done.json").write_text(json.dumps(done | {"digest": stages.done_digest(done)}))
    said = rf"{second.name}: its parameter layers\.up holds NaN or infinite values"
    with pytest.raises(UserError, match=said):
        opening.open_stage(epath.Path(second), opening.Opening())
    child = dataclasses.replace(config, name="child", model=ModelConfig(init=f"stage:{second}"))
    with pytest.raises(UserError, match=said), scratch.quiet():
        experiments.run(child, epath.Path(workdir.parent / "child"))
    assert scratch.open_params(first)


def test_parameters_other_than_before_are_reported(copied):
    """As after training again on other devices: what started from the stage was trained from the former ones."""
    _, _, first, _ = copied
    record = json.loads((first / "done.json").read_text())
    (first / "done.json").rename(first / "done.json.damaged")
    with scratch.quiet() as said:
        stage_training._compare_with_former(epath.Path(first), record["id"], "0" * 64)
    assert f"other parameters (000000000000…, before {record['params_sha256'][:12]}…)" in said.getvalue()
    with scratch.quiet() as said:
        stage_training._compare_with_former(epath.Path(first), record["id"], record["params_sha256"])
    assert not said.getvalue() and not (first / "done.json.damaged").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"name": "n", "questi', "not valid JSON, so it was truncated or changed"),
        ("\x00\x80", "not valid JSON"),
        ("[" * 50_000, "not valid JSON"),
        ("[]", "holds a list instead of an object"),
        ("null", "holds null instead of an object"),
        ("{}", "has no field 'name'"),
        ('{"name": "n", "question": 3}', "its field 'question' is a number"),
    ],
)
def test_a_record_that_cannot_be_used_is_named_with_the_remedy(tmp_path, text, said):
    file = epath.Path(tmp_path / "s.json")
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=said) as error:
        records.study(file)
    assert str(error.value).startswith(str(file)) and "run its study command again" in str(error.value)


def test_records_are_replaced_whole(tmp_path, monkeypatch):
    file = epath.Path(tmp_path / "record.json")
    files.write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(file, {"a": object()})
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError()))
        files.write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 1} and [f.name for f in tmp_path.iterdir()] == ["record.json"]
    (tmp_path / "link.json").symlink_to("/nowhere/else")
    files.write_json(epath.Path(tmp_path / "link.json"), {"a": 3})
    assert json.loads((tmp_path / "link.json").read_text()) == {"a": 3}


HARMS = {
    "a folder": faults.folder_instead,
    "nothing in it": faults.text(""),
    "half of it": faults.half,
    "null": faults.text("null"),
    "a list": faults.text("[]"),
    "a dangling link": faults.dangling,
}


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_stands_in_the_place_of_a_record_training_names_it_and_writes_it_anew(copied, harm):
    config, workdir, first, _ = copied
    stage, base = f"stages/{first.name}", f"stages/{next((workdir / 'stages').glob('base-*')).name}"
    wanted = params_sha256(first)
    for name in ("experiments/campaign.json", f"{base}/stage.json", f"{stage}/stage.json", f"{stage}/done.json"):
        file = workdir / name
        sound = json.loads(file.read_text())
        HARMS[harm](file, random.Random(1))
        if "experiments" in name:
            with pytest.raises(UserError, match=r"campaign\.json.*; run its train or study command"):
                opening.one_stage(epath.Path(workdir))
        said = train_again(config, workdir)
        assert file.name in said or "base" in name, name
        written = json.loads(file.read_text())
        assert {k: written[k] for k in written if k in ("id", "experiment", "stages", "params_sha256", "model")} == {
            k: sound[k] for k in sound if k in ("id", "experiment", "stages", "params_sha256", "model")
        }
        assert train_again(config, workdir).count("done already") == 2
    assert scratch.open_params(first) == wanted


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_stands_in_the_place_of_metrics_training_goes_on(copied, harm):
    config, workdir, first, _ = copied
    HARMS[harm](first / "metrics.jsonl", random.Random(1))
    with contextlib.suppress(UserError):
        records.metrics(epath.Path(first / "metrics.jsonl"))
    (first / "done.json").unlink()
    shutil.rmtree(first / "checkpoints" / "6")
    said = train_again(config, workdir)
    assert "of 3 steps up to 3 at logging.every=1, 3 have no line" in said or harm == "half of it"
    steps = [record["step"] for record in records.metrics(epath.Path(first / "metrics.jsonl"))[0]]
    assert steps[-4:] == [4, 5, 6, 6]  # the last: validation losses
    assert (first / "metrics.jsonl.damaged").is_dir() == (harm == "a folder")


@pytest.mark.parametrize("place", ["", "stages", "claims", "experiments", "stage", "checkpoints", "eval"])
def test_what_stands_in_the_place_of_a_folder_ends_training_before_the_first_stage(copied, place):
    """Of the second stage, while the first is yet to be trained."""
    config, workdir, first, second = copied
    own = {"stage": second, "checkpoints": second / "checkpoints", "eval": second / "eval"}
    folder = own.get(place, workdir / place)
    shutil.rmtree(first)
    for harm, said in (
        (faults.folder_a_file, "is a file instead of a folder"),
        (faults.folder_dangling, r"is a link to /nowhere, which is not there"),
    ):
        files.remove(epath.Path(folder))
        folder.mkdir(parents=True)
        harm(folder, random.Random(1))
        with pytest.raises(UserError, match=rf"^{folder}: {said}; restore the folder"):
            train_again(config, workdir)
        assert not first.exists()


LITTER = (".DS_Store", "._6", ".nfs0001", "Thumbs.db", "desktop.ini", ".hidden/x")


def test_what_file_managers_leave_damages_nothing(copied):
    config, workdir, first, second = copied
    inner = ("", "tokenizer", "checkpoints", "checkpoints/6", "checkpoints/6/params")
    folders = [stage / name for stage in (first, second) for name in inner]
    for folder in (workdir / "experiments", workdir / "stages", *folders):
        for name in LITTER:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"x")
    (workdir / "experiments" / "._campaign.json").write_bytes(b"x")
    (workdir / "stages" / f"._{first.name}").write_bytes(b"x")
    said = train_again(config, workdir)
    assert said.count("done already") == 2 and "damaged" not in said and "again" not in said
    assert scratch.open_params(first) == params_sha256(first)
    assert opening.one_stage(epath.Path(workdir)) == epath.Path(second)
    copy = epath.Path(workdir / "sealed")
    (copy / "sub").mkdir(parents=True)
    (copy / "sub" / "kept").write_text("1")
    (copy / "sub" / ".DS_Store").write_text("1")
    manifest.seal(copy, {})
    (copy / "sub" / ".DS_Store").unlink()
    assert manifest.damage(copy, {}) is None
    (copy / "sub" / "other").write_text("1")
    assert "was not there" in manifest.damage(copy, {})


def test_folders_that_are_no_step_are_no_checkpoint(copied):
    config, workdir, first, _ = copied
    for name in ("007", "²", "9x"):
        (first / "checkpoints" / name).mkdir()
    (first / "done.json").unlink()
    assert "set aside" not in train_again(config, workdir)
    assert scratch.open_params(first) == params_sha256(first)
