"""What a field of a row or turn means for training, told by its name.

MEANINGS is the table: name → kind, and a kind says which values refuse the row and why. _PARTS and _GRADE add the
names that are made of known parts, such as `answer_quality`.

A field that no format takes refuses its row if its name stands here: it would change what is trained on. Any other
field (an id, a source, a score, a language, …) is left out, and reported.
"""

from __future__ import annotations

import re
from typing import NamedTuple

WEIGHTS = ("weight", "loss", "train", "training", "trainable")  # of a turn or a whole row
# KTO and filters of datasets: whether the answer is a good one
VERDICTS = (
    "label",
    "labels",
    "kto_tag",
    "kto_label",
    "desirable",
    "is_desirable",
    "is_correct",
    "is_good",
    "is_valid",
    "is_preferred",
    "accepted",
    "thumbs_up",
    "correct",
    "passed",
    "keep",
    "is_safe",
    "is_ok",
    "is_usable",
    "is_acceptable",
    "is_helpful",
    "is_harmless",
    "is_high_quality",
    "safe",
    "valid",
    "usable",
    "acceptable",
    "review_result",
    "good",
    "ok",
    "helpful",
    "harmless",
    "valid_for_training",
    "usable_for_training",
    "upvoted",
    "use",
    "include",
    "included",
)
# Of these, those that speak of the row's use and not of the answer
USES = ("use", "include", "included", "keep", "valid_for_training", "usable_for_training")
NESTING = ("metadata", "meta")  # objects of notes, in which control of training may stand too
# The same in words. A number in these is a score, and nothing says from where on a score is a bad one.
GRADES = (
    "status",
    "quality",
    "verdict",
    "judgment",
    "judgement",
    "decision",
    "outcome",
    "validity",
    "correctness",
    "safety",
    "grade",
    "rating",
    "review",
    "moderation",
    "approval",
    "llama_guard",
)
SYSTEM = ("system", "system_prompt", "system_message", "system_instruction")
TOOLS = ("tools", "functions")
REASONING = ("reasoning_content", "reasoning", "thinking", "thought")
ADDED = ("input", "context")  # what stands behind an instruction
# Lists and objects that tables hold as JSON text; of these, text such as `null` or `[]` is an absent field
STRUCTURES = (*TOOLS, "tool_calls", "function_call", "function_calls", "history")
# Fields of a turn that templates render under the same name
RENDERED = (*REASONING, "name", "tool_call_id", "functions", "function_calls", "tools")


class Meaning(NamedTuple):
    """Why a row is refused whose field of this name nothing takes."""

    reason: str
    off: bool = False  # the values False and 0 change nothing, and refuse no row
    is_flag: bool = False  # neither does the text of such a value, as tables of texts hold it


_USED = Meaning("it weighs the loss, and is not read here")  # False has a meaning too
_CONTEXT = Meaning("it is context that the answer was given in, and this format has no place for it", off=True)
_HIDDEN = Meaning("it marks what is no part of the conversation", off=True, is_flag=True)
_TRAINED = Meaning("it says what is trained on, in a form that is not read here; use `weight` on the turns")
_EXCEPTION = _TRAINED._replace(off=True, is_flag=True)  # False says what is done anyway
_WRONG = Meaning("it marks the answer as a bad one", off=True, is_flag=True)
_VERDICT = Meaning("it is a verdict on the answer, and is not read here")
_MEDIA = Meaning("only text is trained on", off=True)
_PREFERENCE = Meaning("a preference row, of which no answer is marked as the one to train on")

MEANINGS: dict[str, Meaning] = {
    **dict.fromkeys(WEIGHTS, _USED),
    **dict.fromkeys(VERDICTS, _VERDICT),
    **dict.fromkeys(("error", "hidden", "is_hidden"), _HIDDEN),
    **dict.fromkeys((*SYSTEM, *TOOLS, *REASONING, *ADDED), _CONTEXT),
    **dict.fromkeys(
        (
            "history",
            "histories",
            "chat_history",
            "dialogue_history",
            "previous_messages",
            "sys",
            "preamble",
            "instructions",
            "document",
            "documents",
            "passage",
            "passages",
            "contexts",
            "options",
            "choices",
            "conversation_history",
            "dialog_history",
            "past_messages",
            "previous_turns",
            "article",
            "articles",
        ),
        _CONTEXT,
    ),
    **dict.fromkeys(
        (
            "tool_calls",
            "function_call",
            "function_calls",
            "tool_call",
            "available_tools",
            "tool_list",
            "tool_definitions",
            "reasoning_details",
            "thinking_blocks",
            "thoughts",
            "cot",
            "chain_of_thought",
        ),
        _CONTEXT,
    ),
    **dict.fromkeys(
        (
            "mask",
            "masked",
            "loss_mask",
            "completion_mask",
            "assistant_mask",
            "assistant_masks",
            "train_detail",
            "training_detail",
            "loss_weight",
            "loss_scale",
            "sample_weight",
            "is_train",
            "is_trained",
            "do_train",
            "learn",
            "segments",
            "supervised",
            "has_loss",
            "calculate_loss",
            "should_train",
            "to_train",
            "is_trainable",
            "trained_on",
        ),
        _TRAINED,
    ),
    **dict.fromkeys(
        (
            "prefix",
            "suffix",
            "train_on_prompt",
            "ignore",
            "no_loss",
            "no_train",
            "exclude",
            "excluded",
            "skip",
            "reject",
            "discard",
            "deleted",
            "drop",
            "dropped",
            "remove",
            "removed",
            "filtered",
            "skip_training",
            "exclude_from_training",
            "do_not_use",
        ),
        _EXCEPTION,
    ),
    **dict.fromkeys(
        (
            "wrong",
            "is_wrong",
            "incorrect",
            "is_incorrect",
            "failed",
            "is_failed",
            "bad",
            "is_bad",
            "invalid",
            "is_invalid",
            "corrupted",
            "unsafe",
            "is_unsafe",
            "toxic",
            "is_toxic",
            "harmful",
            "is_harmful",
            "flagged",
            "is_flagged",
            "spam",
            "is_spam",
            "hallucinated",
            "is_hallucinated",
            "hallucination",
            "is_hallucination",
            "has_hallucination",
            "thumbs_down",
            "downvoted",
            "is_negative",
            "low_quality",
            "is_low_quality",
            "has_error",
            "has_errors",
            "is_rejected",
        ),
        _WRONG,
    ),
    **dict.fromkeys(
        (
            "chosen",
            "rejected",
            "chosen_response",
            "rejected_response",
            "chosen_messages",
            "rejected_messages",
            "preferred_output",
            "non_preferred_output",
        ),
        _PREFERENCE,
    ),
    **dict.fromkeys(
        ("image", "images", "video", "videos", "audio", "audios", "input_audio", "files", "attachments"), _MEDIA
    ),
    "refusal": Meaning("an answer that was refused", off=True),
    "is_error": Meaning("a call that failed", off=True),
    **dict.fromkeys(
        ("chat_template_kwargs", "enable_thinking"),
        Meaning("it changes how the template renders this row, which is not done here"),
    ),
}


def _letters(name: str) -> str:
    """A name without its letter case and separators: systemPrompt and System-Prompt are system_prompt."""
    return re.sub(r"[\W_]", "", name).lower()


_BY_LETTERS = {_letters(name): name for name in MEANINGS}
# Parts of names that say as much, whatever stands beside them: loss_weights, rejected_answer, train_on_turn
_PARTS = {
    _PREFERENCE: re.compile(  # not what was measured of the two: score_chosen, rejected_model
        r"^(?!(?:.*_)?(?:scores?|ratings?|rewards?|ranks?|margin|logps?|models?|lengths?|tokens|ids?|source)(?:_|$))"
        r"(?:.*_)?(?:chosen|rejected)(?:_|$)"
    ),
    _VERDICT: re.compile(r"(?:^|_)(?:correct|passed|success|successful|accepted|approved|verified|safe|valid|usable)$"),
    _CONTEXT: re.compile(
        r"(?:^|_)(?:thinking|reasoning)_(?:content|text)(?:_|$)|^sys(?:tem)?_?(?:msg|message|prompt|instructions?)$"
        r"|^(?:tool|function|api)s?_(?:schemas?|definitions?|descriptions?|specs?|list|json)$|^available_(?:tool|function)s$"
        r"|^sys(?:tem)?_?(?:text|content)$"
    ),
    _TRAINED: re.compile(
        r"(?:^|_)(?:(?<!model_)weights?|(?<!attention_)masks?|masked)(?:_|$)|^train_(?:on|this)(?:_|$)|^do_not_train"
        r"|^(?:compute|use|no|skip|ignore)_loss$|^loss_(?:on|turns?|tokens?)$|^include_in_loss$|^(?:use|used)_(?:for|in)_train"
        r"|^train_last|^trainable_|^(?:trained|learnable)$"
    ),
    _MEDIA: re.compile(r"(?:^|_)(?:image|video|audio)s?_(?:urls?|paths?|data|bytes)$"),
}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+", "_", name).lower()


# A grade of the answer or of the whole row: `response_quality`, not `input_quality`
_GRADED = (
    "response",
    "answer",
    "output",
    "completion",
    "assistant",
    "chat",
    "conversation",
    "dialog",
    "dialogue",
    "sample",
    "example",
    "row",
    "record",
    "data",
    "overall",
    "human",
    "annotator",
    "annotation",
    "review",
    "reviewer",
    "judge",
    "llm",
    "gpt",
    "final",
    "quality",
    "verification",
    "validation",
    "moderation",
    "safety",
)
_GRADE = re.compile(rf"(?:(?:{'|'.join(_GRADED)})_)*(?:{'|'.join((*GRADES, 'label'))})(?:_?\d+)?")


def meaning(name: str) -> Meaning | None:
    """The meaning of a field of this name, in any spelling; None for a field without one."""
    if name in MEANINGS:
        return MEANINGS[name]
    if known := _BY_LETTERS.get(_letters(name)):
        return MEANINGS[known]._replace(reason=f"it is read under the name '{known}' alone")
    return next((found for found, part in _PARTS.items() if part.search(_snake(name))), None)


def is_verdict(name: str) -> bool:
    """Whether a field of this name says that the answer is a good or a bad one."""
    return name in VERDICTS or bool(_PARTS[_VERDICT].search(name))


def is_grade(name: str) -> bool:
    """Whether a field of this name may say in words how good the answer is."""
    return meaning(name) is None and bool(_GRADE.fullmatch(_snake(name)))


def is_opinion(name: str) -> bool:
    """Whether a field of this name may say that the answer is a bad one."""
    return is_verdict(name) or is_grade(name) or meaning(name) == _WRONG


def same_letters(name: str, names: tuple[str, ...]) -> str | None:
    """The name of which this is another spelling, as `Response` is of `response`; None if there is none."""
    return next((each for each in names if each != name and _letters(each) == _letters(name)), None)


def is_preference(name: str) -> bool:
    """Whether a field of this name makes its row one of preferences."""
    return meaning(name) == _PREFERENCE
