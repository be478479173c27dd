"""Perplexity of held-out conversations, by domain: a file a domain.

--data perplexity='held_out/*.jsonl', each in any format that training reads; math.jsonl is the domain `math`.

  perplexity           e to the mean negative log-likelihood of a token
  perplexity, math     of this file's alone
Tokens are those that training trains on: every assistant turn with its end, in the chat template; all of a document.
What the model has no room for is cut off, as in training. Smaller is better; only
models with the same tokenizer can be compared.
"""

import json
import math
from collections import Counter

from sftmix_jax.data.messages import BadRow
from sftmix_jax.data.readers import files
from sftmix_jax.data.sources import Source, read_conversations
from sftmix_jax.evaluation.task import Metric, Question, Task, Turns, Verdict
from sftmix_jax.machine import terminal


def load(path: str) -> list[Question]:
    questions = []
    for file in files(path):
        domain, left_out = file.name.partition(".")[0], Counter[str]()
        for i, (_where, measured) in enumerate(read_conversations(Source(str(file)))):
            if isinstance(measured, BadRow):
                left_out[str(measured)] += 1
                continue
            asked = "\n\n".join(message.content for message in measured.messages if message.role == "user")
            questions.append(Question(f"perplexity/{domain}/{i}", (asked,), {}, measured=measured, group=domain))
        for reason, count in left_out.items():
            terminal.err(f"perplexity: {file.name}: {count} rows left out: {reason}")
    return questions


def score(question: Question, answers: Turns) -> Verdict:
    measured = json.loads(answers[0]) if answers[0] else {"tokens": 0}
    if not measured["tokens"]:  # the model has no room for any of its answers
        return {"perplexity": None, "tokens": None}
    mean = measured["log_likelihood"] / measured["tokens"]
    return {"perplexity": math.exp(-mean), "tokens": float(measured["tokens"])}


TASK = Task(
    name="perplexity",
    ability="language modelling",
    load=load,
    score=score,
    default_data="",
    metrics=(Metric("perplexity", is_rate=False, best=0.0, weight="tokens", geometric=True),),
)
