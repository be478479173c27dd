"""The JSON records of a workdir: the fields that each must have, and how a damaged one is made again."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from etils import epath

from sftmix_jax.machine import processes, terminal
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.files import (
    content_digest,
    digest,
    exists,
    matching,
    read_json,
    read_lines,
    read_sound_lines,
    replace,
    write_json,
)

TRAIN_AGAIN = "run the same train command again, which writes what is missing or damaged"
RUN_AGAIN = "run its train or study command again, which writes it anew"
_STUDY_AGAIN = "run its study command again, which writes it anew"
_EVALUATE_AGAIN = "evaluate again, which writes it anew and asks only for what is missing"


def id_of(folder: epath.Path) -> str:
    """The id of a stage in its folder's name, NAME-ID; empty for a folder of another name."""
    found = re.fullmatch(r".+-([0-9a-f]{12})", folder.name)
    return found[1] if found else ""


def of_another(file: epath.Path, found: str, wanted: str) -> UserError:
    """What to say of a record that belongs to another stage."""
    return UserError(
        f"{file}: is of the stage {found}, and this is {wanted}: it was copied here; {TRAIN_AGAIN}; if the whole "
        f"folder is a copy, delete it; if it was renamed, name it {file.parent.name.removesuffix(wanted)}{found} again"
    )


def stage_folders(workdir: epath.Path, ids: Iterable[str]) -> dict[str, epath.Path]:
    """The folders NAME-ID of stages that were begun, by id, whatever their names. Raises UserError for two of one."""
    wanted, found = set(ids), dict[str, epath.Path]()
    for folder in matching(workdir / "stages", "*-*"):
        id = folder.name.rpartition("-")[2]
        if id in wanted and found.setdefault(id, folder) is not folder:
            raise UserError(
                f"{workdir / 'stages'}: {found[id].name} and {folder.name} are the same stage, and only one of them "
                "would be used; move the other out of the folder, or delete it"
            )
    return found


def stage_folder(workdir: epath.Path, id: str) -> epath.Path | None:
    """The folder of one stage; None where there is none. Raises UserError for two of them."""
    return stage_folders(workdir, [id]).get(id)


def renamed(workdir: epath.Path, id: str) -> epath.Path | None:
    """A folder that holds the finished stage and does not have its id in its name; None where there is none."""
    for folder in matching(workdir / "stages", "*"):
        with contextlib.suppress(UserError, OSError):
            if exists(folder / "done.json") and stage(folder / "stage.json")["id"] == id:
                return folder
    return None


def experiment(file: epath.Path, remedy: str = RUN_AGAIN) -> dict[str, Any]:
    """experiments/NAME.json: the resolved experiment and the ids of its base and stages. Raises UserError."""
    return read_json(file, remedy, experiment=dict, base=str, stages=dict)


def study(file: epath.Path, remedy: str = _STUDY_AGAIN) -> dict[str, Any]:
    """studies/NAME.json: its question and its experiments' labels. Raises UserError."""
    return read_json(file, remedy, name=str, question=str, hold=str, experiments=dict)


def known(file: epath.Path, read: Callable[[epath.Path, str], dict[str, Any]]) -> dict[str, Any]:
    """A record that its command writes anew: empty, and reported, where it is damaged; empty where there is none."""
    if not exists(file):
        return {}
    try:
        return read(file, "it is written anew")
    except UserError as error:
        terminal.err(f"warning: {error}")
        return {}


def stage(file: epath.Path) -> dict[str, Any]:
    """stage.json. Raises UserError."""
    return read_json(file, TRAIN_AGAIN, name=str, id=str, model=dict, template=str, tokenizer=str, dtype=str)


def done(file: epath.Path) -> dict[str, Any]:
    """done.json. Raises UserError."""
    return read_json(
        file,
        TRAIN_AGAIN,
        id=str,
        digest=str,
        steps=int,
        ledger=dict,
        rows=dict,
        validation_loss=dict,
        params_sha256=str,
    )


def score(file: epath.Path, remedy: str = _EVALUATE_AGAIN) -> dict[str, Any]:
    """eval/TASK/score.json without the hash of itself. Raises UserError, also if it was changed since."""
    record = read_json(file, remedy, task=str, metrics=dict, fixed_by=dict, digest=str)
    if record.pop("digest") != digest(record):
        raise UserError(f"{file}: has changed since it was written; {remedy}")
    return record


def metrics(file: epath.Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The records in metrics.jsonl, and the numbers of the lines that are damaged.

    The last line is not damaged where it is cut: a run may be writing it. Raises UserError.
    """
    lines = read_sound_lines(file, step=int)
    damaged = [number for number, record in enumerate(lines[:-1], 1) if record is None]
    return [record for record in lines if record is not None], damaged


def write_score(file: epath.Path, record: dict[str, Any]) -> None:
    """Write eval/TASK/score.json with a hash of itself. Of several processes the first one writes."""
    plain = json.loads(json.dumps(record, default=str))  # as it will be read; lm-eval's settings hold objects
    write_json(file, {**plain, "digest": digest(plain)})


def write_scored(folder: epath.Path, rows: Sequence[dict[str, Any]], record: dict[str, Any]) -> dict[str, Any]:
    """Write responses.jsonl, a question per line, then score.json → its record, which names the responses by a hash."""
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    record = {**record, "responses": content_digest(data)}
    if processes.is_first():
        replace(folder / "responses.jsonl", data)
    write_score(folder / "score.json", record)
    return record


def responses(file: epath.Path, remedy: str = _EVALUATE_AGAIN) -> list[dict[str, Any]]:
    """eval/TASK/responses.jsonl, a question per line. Raises UserError, also if the score is of other responses."""
    rows, beside = read_lines(file, remedy), file.with_name("score.json")
    if beside.exists() and score(beside, remedy).get("responses") != content_digest(file.read_bytes()):
        raise UserError(f"{file}: has changed since it was scored; {remedy}")
    return rows


def samples(file: epath.Path) -> list[dict[str, Any]]:
    """eval/lm_eval_TASK/samples.jsonl: lm-eval's own records, a document and filter per line. Raises UserError."""
    return read_lines(file, _EVALUATE_AGAIN)


def contamination(file: epath.Path) -> dict[str, Any]:
    """contamination.json: by task what was looked for and found. Raises UserError."""
    return read_json(file, "evaluate again, which writes it anew")


def probe(file: epath.Path) -> dict[str, Any]:
    """probe.json. Raises UserError."""
    return read_json(file, "probe again, which writes it anew", settings=dict, cosines=dict, silhouette=dict)


def failure(file: epath.Path) -> dict[str, Any]:
    """failures/ID.json: what a study's worker could not do. Raises UserError."""
    return read_json(file, "delete it and run the study again", job=str, experiments=list, error=str)
