"""The OpenAI schema, nothing else: what a client may send, what it gets back, and why a body is refused.

Called by the gateway and by clients of OpenAI-compatible endpoints.
"""

from __future__ import annotations

from inlay.wire.chat import (
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatRequest,
    chat_logprobs,
    plain_messages,
)
from inlay.wire.completions import Completion, CompletionChoice, CompletionRequest, completion_logprobs
from inlay.wire.failure import ErrorReply, status_of
from inlay.wire.models import ModelCard, ModelList
from inlay.wire.placement import Served
from inlay.wire.reading import read_request
from inlay.wire.tokens import DetokenizeReply, DetokenizeRequest, TokenizeReply, TokenizeRequest
from inlay.wire.usage import Usage, count_usage

__all__ = [
    "ChatAnswer",
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatDelta",
    "ChatRequest",
    "Completion",
    "CompletionChoice",
    "CompletionRequest",
    "DetokenizeReply",
    "DetokenizeRequest",
    "ErrorReply",
    "ModelCard",
    "ModelList",
    "Served",
    "TokenizeReply",
    "TokenizeRequest",
    "Usage",
    "chat_logprobs",
    "completion_logprobs",
    "count_usage",
    "plain_messages",
    "read_request",
    "status_of",
]
