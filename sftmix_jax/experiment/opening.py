"""Open something that answers: a stage of a workdir, its base model, or any model folder. For the verbs."""

from __future__ import annotations

from typing import Any

import jax
from etils import epath

from sftmix_jax.data.chat import Chat
from sftmix_jax.data.tokenizer import Tokenizer
from sftmix_jax.evaluation.answers import Model
from sftmix_jax.experiment.load_options import Opening
from sftmix_jax.experiment.stages import Base, architecture, check_tokenizer, find_base, read_done, read_stage
from sftmix_jax.machine import identity, processes, terminal
from sftmix_jax.machine.errors import UserError, did_you_mean
from sftmix_jax.machine.files import matching
from sftmix_jax.models.compute import ComputeConfig
from sftmix_jax.models.hf_config import Ends
from sftmix_jax.parallel import sharding
from sftmix_jax.sampling.decode import Setup
from sftmix_jax.sampling.sampler import Sampler, abstract_params
from sftmix_jax.workdir.records import RUN_AGAIN
from sftmix_jax.workdir.records import experiment as read_experiment
from sftmix_jax.workdir.records import stage_folders as folders_by_id


def stage_folders(workdir: epath.Path, wanted: str = "all") -> list[epath.Path]:
    """Folders of finished stages, bases first, then in the order of training; all or those of a name or id.

    Raises UserError if a record of a finished stage is damaged, whichever stage is wanted.
    """
    if not (workdir / "stages").is_dir():
        raise UserError(f"{workdir}: no workdir (it has no stages/); train there first")
    records = {}
    for folder in (workdir / "stages").iterdir():
        if (folder / "done.json").exists() or folder.name.startswith("base-"):
            records[folder] = read_stage(folder)
    for folder, record in records.items():
        name, _, id = folder.name.rpartition("-")
        if id == record["id"] and name != record["name"] and processes.is_first():
            terminal.err(
                f"note: {folder / 'stage.json'}: its name is '{record['name']}', which is not that of its folder; "
                "--stage takes either"
            )
    folders_by_id(workdir, [record["id"] for record in records.values()])  # one for each
    depth = {record["id"]: _depth(record, records) for record in records.values()}
    ordered = sorted(records, key=lambda f: (depth[records[f]["id"]], f.name))
    if wanted == "all":
        return ordered
    names = set(wanted.split(","))
    chosen = [f for f in ordered if names & {f.name, f.name.rpartition("-")[0], records[f]["name"], records[f]["id"]}]
    if not chosen:
        known = {records[f]["name"] for f in ordered}
        raise UserError(f"{workdir}: no finished stage '{wanted}'; {did_you_mean(wanted, known)}")
    return chosen


def one_stage(workdir: epath.Path, wanted: str = "all") -> epath.Path:
    """The folder of the finished stage of a name or id; by default that of the last stage of the experiment.

    Raises UserError if several stages are meant, and if the last stage is not finished.
    """
    folders = stage_folders(workdir, wanted)
    if not folders:
        raise UserError(f"{workdir}: no stage in it is finished; train there first")
    last = _last_stages(workdir) if wanted == "all" else {}
    for id, stage in last.items():
        if not any(folder.name.endswith(f"-{id}") for folder in folders):
            raise UserError(
                f"{workdir}: {stage} is not finished; run its train command again, which finishes it, or name a "
                f"finished stage: --stage={' or '.join(folder.name for folder in folders)}"
            )
    if last:
        folders = [folder for folder in folders if folder.name.rpartition("-")[2] in last]
    if len(folders) > 1 and (last or wanted != "all"):
        raise UserError(f"{workdir}: which stage? --stage={' or '.join(folder.name for folder in folders)}")
    return folders[-1]


def _last_stages(workdir: epath.Path) -> dict[str, str]:
    """The ids of the experiments' last stages, and what to call each. Raises UserError."""
    found = {}
    for file in matching(workdir / "experiments", "*.json"):
        stages = read_experiment(file, f"{RUN_AGAIN}, or name a stage: --stage=NAME")["stages"]
        for name, id in list(stages.items())[-1:]:
            found[str(id)] = f"{name}-{id}, the last stage of the experiment '{file.stem}',"
    return found


def _depth(record: dict[str, Any], records: dict[epath.Path, dict[str, Any]]) -> int:
    by_id = {r["id"]: r for r in records.values()}
    depth = 0
    while record.get("parent") in by_id:
        record = by_id[record["parent"]]
        depth += 1
    return depth + (record["name"] != "base")


def open_stage(folder: epath.Path, opening: Opening) -> Model:
    """A finished stage, or the base of a workdir. Raises UserError for one that is unfinished or damaged."""
    record = read_stage(folder)
    check_tokenizer(folder)
    tokenizer = str(folder / "tokenizer")
    if record["name"] == "base":
        base = find_base(record["init"], tokenizer, record["seed"])
        _check_base(folder, record, base)
    else:
        read_done(folder, record)
        base = Base(record["id"], architecture(record), tokenizer, str(folder), ends=Ends(**record["ends"]))
    chat = Chat(opening.template, Tokenizer(base.tokenizer)) if opening.template else stage_chat(folder, record)
    return _model(f"{record['name']} ({record['id']})", base, chat, opening, folder, record["dtype"])


def _check_base(folder: epath.Path, record: dict[str, Any], base: Base) -> None:
    """Raises UserError unless a model that was found is that of a base's stage.json."""
    found = identity.plain({"weights": base.fingerprint, "ends": base.ends._asdict()})
    if not found.keys() <= record.keys():
        raise UserError(
            f"{folder}: was written by an older version, in which experiments that ask their base in another way could "
            "share it, so that its scores may be of any of them; delete it and run the train command again, which "
            "writes another"
        )
    changed = identity.differences({key: record[key] for key in found}, found)
    if changed:
        raise UserError(
            f"{folder}: its model {record['init']} has changed since ({'; '.join(changed)}); restore its files, or "
            "train from it in another --workdir"
        )


def stage_chat(folder: epath.Path, record: dict[str, Any]) -> Chat:
    """The chat template that a stage was trained with, from the tokenizer in its folder. Raises UserError."""
    tokenizer = Tokenizer(str(folder / "tokenizer"))
    chat = Chat(record["template"].partition(":")[0], tokenizer, tokenizer.chat_template)
    if chat.fingerprint != record["template"]:
        raise UserError(
            f"{folder}/tokenizer: its chat template is {chat.fingerprint}, the stage was trained with "
            f"{record['template']}; run the training command again, which writes it anew"
        )
    return chat


def open_model(init: str, opening: Opening, out: epath.Path | None = None) -> Model:
    """A model folder or hub id, or a stage's folder."""
    path = epath.Path(init).expanduser()
    if (path / "stage.json").exists():
        return open_stage(path, opening)
    base = find_base("tiny" if init == "tiny" else f"hf:{init}", "", 0)
    chat = Chat(opening.template, Tokenizer(base.tokenizer))
    folder = out or epath.Path("runs") / f"{path.name}-{base.fingerprint[:12]}"
    return _model(path.name, base, chat, opening, folder, "auto")


def _model(name: str, base: Base, chat: Chat, opening: Opening, folder: epath.Path, dtype: str) -> Model:
    wanted = opening.dtype if opening.dtype != "auto" else dtype
    compute = ComputeConfig(wanted, "none", "plain").resolved(base.config, jax.default_backend())
    tokenizer = chat.tokenizer
    tokenizer.check_size(base.config.vocab_size, "give the folder the model's own tokenizer")
    ends = base.ends.behind(*chat.stops())
    setup = Setup(base.config, compute, sharding.make_mesh(sharding.MeshConfig()))
    params = base.params(abstract_params(setup))
    sampler = Sampler(setup, params, tokenizer, stop_ids=ends.ids, stop_strings=ends.strings, slots=opening.slots)
    identity = {
        "model": base.fingerprint,
        "dtype": compute.dtype,
        "tokenizer": tokenizer.fingerprint,
        "stops": sampler.stops,
    }
    return Model(name, identity, sampler, chat, folder)
