"""What evaluate can be asked for: models or stored answers, tasks, how they are sampled, judged and shown."""

from __future__ import annotations

import dataclasses

from sftmix_jax.evaluation.config import EvaluationConfig, own_data
from sftmix_jax.evaluation.judging import JudgeConfig
from sftmix_jax.experiment.load_options import Opening
from sftmix_jax.machine.errors import UserError
from sftmix_jax.machine.ranges import Flag, Items, Location, Text, of, setting


@dataclasses.dataclass
class EvaluateOptions:
    """The options of a command that scores."""

    workdir: str = setting("", Location(), "score the stages of this workdir")
    stage: str = setting("all", Text(), "a stage's name or id, base, or all")
    model: str = setting("", Text(), "score a model folder, a hub id or a stage folder")
    out: str = setting("", Location(), "where the scores of --model (by default runs/NAME-ID) or --responses go")
    responses: str = setting(
        "", Location(), "score the stored responses of a file, laid out as in docs/stored_outputs.md"
    )
    columns: str = setting("", Text(), "OURS=FIELD,… of --responses: id or question, or both, and response or samples")
    judgments: tuple[str, ...] = setting(
        (),
        Items(Location()),
        "read stored judgments again: FastChat's model_judgment/*.jsonl; of pairs AlpacaEval's and QLoRA's, too",
    )
    tasks: tuple[str, ...] = setting((), Items(Text()), "files of eval/")
    lm_eval: tuple[str, ...] = setting((), Items(Text()), "tasks of lm-evaluation-harness")
    lm_eval_tasks: str = setting("", Location(), "a folder of further task files for lm-eval")
    compare: tuple[str, ...] = setting((), Items(Text()), "two scored stages on the same questions, paired")
    show: str = setting("", Text(), "page through the stored responses to this task, worst first")
    only: str = setting("", Text(), "with --show: wrong, right, or words of the question")
    limit: int = setting(0, of(EvaluationConfig, "limit"), "only the first so many questions; 0: all")
    data: str = setting("", Text(), "PATH, or task=PATH,… instead of the tasks' own data")
    samples: int = setting(1, of(EvaluationConfig, "samples"), "answers drawn per question (pass@k, majority)")
    temperature: float = setting(0.0, of(EvaluationConfig, "temperature"), "instead of the task's own")
    seed: int = setting(0, of(EvaluationConfig, "seed"), "of the draws")
    judge: str = setting(
        "", of(JudgeConfig, "name"), "openai:MODEL (OPENAI_BASE_URL, OPENAI_API_KEY) or model:DIR_OR_HUB_ID"
    )
    judgings: int = setting(1, of(JudgeConfig, "judgings"), "judgments per answer, averaged")
    judge_temperature: float = setting(0.0, of(JudgeConfig, "temperature"), "of the judge")
    judge_concurrency: int = setting(8, of(JudgeConfig, "concurrency"), "requests at the same time")
    judge_timeout: float = setting(120.0, of(JudgeConfig, "timeout"), "seconds per request")
    judge_limit: float = setting(0.0, of(JudgeConfig, "limit"), "dollars that this run may spend; needs --judge_prices")
    judge_prices: tuple[float, ...] = setting(
        (0.0, 0.0), Items(of(JudgeConfig, "input_price")), "dollars per million tokens, of the input and of the output"
    )
    template: str = setting("", of(Opening, "template"), "chat template, instead of the stage's own")
    dtype: str = setting("auto", of(Opening, "dtype"), "of the computation")
    slots: int = setting(32, of(Opening, "slots"), "prompts that are answered at the same time")
    json: bool = setting(False, Flag(), "prints score.json")
    skip_contamination: bool = setting(False, Flag(), "does not look for the questions in the training data")
    picture: bool = setting(False, Flag(), "also draws abilities.png into the workdir")
    allow_unsandboxed_code: bool = setting(False, Flag(), "runs model-written code even where it cannot be contained")

    @property
    def opening(self) -> Opening:
        """How the models are loaded."""
        return Opening(self.template, self.dtype, self.slots)

    def config(self) -> EvaluationConfig:
        """What is measured, and how. Raises UserError."""
        judge = JudgeConfig(
            self.judge,
            self.judgings,
            self.judge_temperature,
            concurrency=self.judge_concurrency,
            timeout=self.judge_timeout,
            limit=self.judge_limit,
            input_price=self.judge_prices[0],
            output_price=self.judge_prices[1],
        )
        return EvaluationConfig(
            tasks=self.tasks,
            limit=self.limit,
            data=own_data(self.data, self.tasks),
            samples=self.samples,
            temperature=self.temperature,
            seed=self.seed,
            judge=judge,
            allow_unsandboxed_code=self.allow_unsandboxed_code,
        )

    def check(self) -> None:
        """Raises UserError for options that do not fit together."""
        if len(self.judge_prices) != 2:
            raise UserError("--judge_prices takes two numbers, of the input and of the output: --judge_prices 2.5 10")
        if self.compare and len(self.compare) != 2:
            raise UserError("--compare takes two stages: --compare specialised general")
        if self.columns and not self.responses:
            raise UserError("--columns name the fields of --responses FILE")
        # What is stored needs no other source of answers, and judgments have nowhere to go but to the terminal.
        for option, others in {
            "judgments": ("responses", "model", "workdir", "out"),
            "responses": ("model", "workdir"),
        }.items():
            for other in others if getattr(self, option) else ():
                if getattr(self, other):
                    raise UserError(f"--{option} scores what is stored already; leave --{other} out")
            for asked in ("samples", "temperature", "seed", "lm_eval") if getattr(self, option) else ():
                if getattr(self, asked) != getattr(EvaluateOptions, asked):
                    raise UserError(f"--{option} asks no model; leave --{asked} out")
        if self.model and self.workdir:
            raise UserError("--model and --workdir name two things to score; leave one out")
        if self.show and not self.workdir:
            raise UserError("name the workdir whose responses to show: --workdir DIR --show TASK --stage NAME")
        if not (self.show or self.tasks or self.lm_eval):
            raise UserError("name what to measure: --tasks gsm8k,humaneval")
        for option in ("judgments", "responses"):
            if getattr(self, option) and len(self.tasks) != 1 and not (self.show or self.compare):
                raise UserError(f"--{option} belong to one task: --task NAME --{option} FILE.jsonl")
