"""A judge behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from sftmix_jax.evaluation.judging import JudgeConfig, Prompt, Reply
from sftmix_jax.machine import escaping
from sftmix_jax.machine.errors import UserError

_TRIES = 6  # of one request; with back-off between them


class Endpoint:
    """Chat completions of one model; base URL and key come from OPENAI_BASE_URL and OPENAI_API_KEY.

    429, 5xx, broken connections and time-outs are tried again with exponential back-off, or after what the server's
    Retry-After says. Raises UserError where no prompt could succeed: no package, a refused key, an unknown model.
    """

    def __init__(self, model: str, config: JudgeConfig):
        try:
            import openai
        except ImportError:
            raise UserError(
                "a judge behind an endpoint needs the package openai: pip install 'sftmix-jax[eval]'"
            ) from None
        if not os.environ.get("OPENAI_API_KEY"):
            raise UserError("the judge's key is read from the environment: set OPENAI_API_KEY (and OPENAI_BASE_URL)")
        self.name = f"openai:{model}"
        self._model, self._config, self._errors = model, config, openai
        try:
            self._client = openai.OpenAI(timeout=config.timeout, max_retries=_TRIES - 1)
        except Exception as error:  # of the package's HTTP client, whichever that is
            where = os.environ.get("OPENAI_BASE_URL", "")
            raise UserError(_said(f"OPENAI_BASE_URL {where!r} cannot be asked: {error}")) from None

    def ask(
        self,
        prompts: Sequence[tuple[Prompt, int]],
        got: Callable[[int, Reply], None],
        failed: Callable[[int, str], None],
        may_ask: Callable[[], bool],
    ) -> None:
        """As Judge.ask; `concurrency` requests at the same time."""

        def one(i: int) -> None:
            if not may_ask():
                return failed(i, f"the spending limit of ${self._config.limit:g} was reached")
            try:
                got(i, self._request(prompts[i][0]))
            except _NoReply as reason:
                failed(i, str(reason))

        with ThreadPoolExecutor(max(1, self._config.concurrency)) as pool:
            waiting = [pool.submit(one, i) for i in range(len(prompts))]
            try:
                for done in as_completed(waiting):
                    done.result()
            except BaseException:  # a refused key, Ctrl-C: ask for nothing more
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _request(self, prompt: Prompt) -> Reply:
        """One judgment. Raises _NoReply after the last try."""
        errors = self._errors
        try:
            answer = self._client.chat.completions.create(
                model=self._model,
                temperature=self._config.temperature,
                max_tokens=self._config.max_tokens,
                messages=[{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
            )
        except (errors.AuthenticationError, errors.PermissionDeniedError, errors.NotFoundError) as error:
            where = os.environ.get("OPENAI_BASE_URL", "the endpoint")
            raise UserError(_said(f"{where} refuses the judge {self._model}: {error}")) from None
        except errors.OpenAIError as error:
            raise _NoReply(_said(f"{type(error).__name__}: {error}")) from None
        except ValueError as error:
            raise _NoReply(_said(f"the reply is no chat completion: {error}")) from None
        text = answer.choices[0].message.content if getattr(answer, "choices", None) else None
        if text is None:
            raise _NoReply("the reply is no chat completion: it holds no message")
        if answer.usage is None:  # count too much rather than too little: three characters a token
            return Reply(text, (len(prompt.system) + len(prompt.user)) // 3, len(text) // 3)
        return Reply(text, answer.usage.prompt_tokens, answer.usage.completion_tokens)


class _NoReply(Exception):
    """No reply to one prompt, after all tries; the message says why."""


def _said(message: str) -> str:
    """On one line, without the key: servers quote it, and the message is stored and shown."""
    message = escaping.redacted(" ".join(message.split()), os.environ.get("OPENAI_API_KEY", ""))
    return re.sub(r"(?<=://)[^/@\s]+@", "[key]@", message)[:400]  # a URL's own user and password
