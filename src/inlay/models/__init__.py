"""What a language model folder holds: ModelSpec, weights, tokenizer, chat template.

`models.torch` is the torch door of this room: the stage program of a causal language model.
"""

from __future__ import annotations

from inlay.models.chat import ChatEncoder, check_messages
from inlay.models.checkpoint import Checkpoint, numpy_dtype, open_checkpoint
from inlay.models.digest import model_digest
from inlay.models.safetensors_header import TensorEntry, write_tensors
from inlay.models.spec import DefaultSampling, ModelSpec, read_model
from inlay.models.stream import TextStream
from inlay.models.template import ChatTemplate, read_template, tokenizer_facts
from inlay.models.tokenizer import Tokenizer, check_vocabulary, read_tokenizer
from inlay.models.tools import CallFormat

__all__ = [
    "CallFormat",
    "ChatEncoder",
    "ChatTemplate",
    "Checkpoint",
    "DefaultSampling",
    "ModelSpec",
    "TensorEntry",
    "TextStream",
    "Tokenizer",
    "check_messages",
    "check_vocabulary",
    "model_digest",
    "numpy_dtype",
    "open_checkpoint",
    "read_model",
    "read_template",
    "read_tokenizer",
    "tokenizer_facts",
    "write_tensors",
]
