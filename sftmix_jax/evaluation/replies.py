"""What of a response is its answer: without the reasoning before it and the next question behind it."""

from __future__ import annotations

import re

from sftmix_jax.evaluation.task import Program

_REASONED = "</think>"  # the opening tag stands in the prompt of some chat templates (DeepSeek-R1)
# What a base model writes once it has answered: the next question of a list, or the other side of a conversation.
_NEXT = re.compile(
    r"(?im)^[ \t#*]*(?:(?:question|problem|exercise|q)(?: *(?P<number>\d+))?[*]* ?[:.]|(?:human|user|instruction) ?:"
    r"|a multiple-choice question about |the following (?:is|are) (?:a )?multiple.choice )"
    r"|<\|(?:im_start|start_header_id|user|endoftext|eot_id)\|>|</s>"
)


def without_reasoning(response: str) -> str:
    """What stands behind the last `</think>`; the whole response where there is none, as lm-eval has it."""
    if isinstance(response, Program) or _REASONED not in response:
        return response
    return response.rpartition(_REASONED)[2].lstrip()


def first_answer(response: str) -> str:
    """The response up to where it goes on to a further question; whole if it begins with one.

    Questions that are numbered from 1 are steps of the answer.
    """
    are_steps = False
    for found in _NEXT.finditer(response):
        are_steps |= found["number"] == "1"
        before = response[: found.start()].strip()
        if before and not (are_steps and found["number"]):
            return before
    return response
