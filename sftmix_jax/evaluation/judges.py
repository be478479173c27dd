"""Judges by name: an endpoint's model, or one of our own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sftmix_jax.data.messages import BadRow, Message
from sftmix_jax.evaluation.answers import Model
from sftmix_jax.evaluation.endpoint import Endpoint
from sftmix_jax.evaluation.judging import Judge, JudgeConfig, Prompt, Reply
from sftmix_jax.machine.errors import UserError
from sftmix_jax.sampling.sampler import Request, Response


def make_judge(config: JudgeConfig, open_model: Callable[[str], Model]) -> Judge:
    """`openai:MODEL` or `model:DIR_OR_HUB_ID`. Raises UserError."""
    kind, _, name = config.name.partition(":")
    if kind == "openai" and name:
        return Endpoint(name, config)
    if kind == "model" and name:
        return OwnModel(open_model(name), config)
    raise UserError(f"judge '{config.name}': must be openai:MODEL or model:DIR_OR_HUB_ID")


_SURROGATE = re.compile("[\\ud800-\\udfff]")  # alone, as stored answers may hold one


class OwnModel:
    """A judge that our sampler runs; several judgings differ by their seeds."""

    def __init__(self, model: Model, config: JudgeConfig):
        self.name = f"model:{model.identity['model']}"
        self._model, self._config = model, config

    def ask(
        self,
        prompts: Sequence[tuple[Prompt, int]],
        got: Callable[[int, Reply], None],
        failed: Callable[[int, str], None],
        may_ask: Callable[[], bool],
    ) -> None:
        """As Judge.ask, in one batch."""
        chat = self._model.chat
        asked, requests = [], []
        for i, (prompt, judging) in enumerate(prompts):
            if _SURROGATE.search(prompt.user):
                failed(i, "the judge cannot be asked: half of a character (as \\ud83d), which no tokenizer can read")
                continue
            try:
                tokens = tuple(chat.prompt([Message("system", prompt.system), Message("user", prompt.user)]))
            except BadRow as reason:
                failed(i, f"the judge cannot be asked: {reason}")
                continue
            asked.append(i)
            requests.append(Request(tokens, self._config.max_tokens, self._config.temperature, sample=judging))

        def finished(i: int, response: Response) -> None:
            if response.finish_reason == "prompt_too_long":
                return failed(asked[i], f"{len(requests[i].tokens)} tokens are more than the judge can hold")
            got(asked[i], Reply(response.text, len(requests[i].tokens), len(response.tokens)))

        self._model.sampler.generate(requests, finished)
