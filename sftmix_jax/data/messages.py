"""Conversations: what every source format becomes, and what a chat template renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str  # system, user, assistant or tool; text: a document that is trained on whole
    content: str
    weight: float = 1.0  # multiplies the loss of this message's trained tokens; 0: not trained on
    # What else a template may render, by the template's own names: tool_calls, reasoning_content, name, …
    fields: Mapping[str, Any] = MappingProxyType({})


class Conversation(NamedTuple):
    """A row's messages, the tools that its system prompt offers, and what is left out."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()  # JSON schemas, as `apply_chat_template(tools=…)` takes them
    unused: frozenset[str] = frozenset()  # names of the row's fields that have no meaning for training


class BadRow(Exception):
    """A row that cannot become an example; the message is the reason, the same for all rows of a kind."""


class LeftOut(BadRow):
    """A row that the source was configured to leave out."""
