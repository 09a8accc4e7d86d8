"""Model folders for the tests of this room: small tokenizers of three families, tiny random models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 12345 o'clock, isn't it?\n\n",
    "def main(argument):\n    return argument + 1\n\nHello world, hello again. What does that token do?\n",
    "Grüße aus Zürich, où est la gare? 東京は大きい。 Привет мир 🙂🎉 naïve café e\u0301\n",
    "The user and the assistant speak of the system, and the system is the end of the user.\n",
] * 4
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = """\
{{- bos_token }}
{%- if tools %}
    {{- '<|im_start|>system\\nTools: ' }}
    {%- for tool in tools %}{{ tool | tojson }}{{ "\\n" }}{% endfor %}
    {{- 'Answer in <tool_call>.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if loop.first and message['role'] == 'tool' %}{{ raise_exception('A tool cannot begin') }}{% endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] | trim) + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}
"""
INST = """\
{{ bos_token }}{% for message in messages %}
{%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}
{%- else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}
{%- endfor %}
"""


def byte_level() -> Tokenizer:
    """As Llama 3 and Qwen: byte-level BPE, control tokens outside the vocabulary, one token put before a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens(["<|begin|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>", "<tool_call>", "<unused>")])
    begin = ("<|begin|>", tokenizer.token_to_id("<|begin|>"))
    template = processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[begin])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def byte_fallback(*, metaspace: bool) -> Tokenizer:
    """As Llama 2 and Mistral: control tokens inside the vocabulary, a leading space, bytes for the unknown."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    specials = ["<unk>", "<s>", "</s>"]
    ascii_corpus = [text.encode("ascii", "ignore").decode() for text in CORPUS]
    trained.train_from_iterator(
        [part for text in ascii_corpus for part in text.split("\n")],
        trainers.BpeTrainer(vocab_size=420, special_tokens=specials + bytes_, show_progress=False, max_token_length=12),
    )
    import json

    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([*specials, "[INST]", "[/INST]"])
    begin = ("<s>", tokenizer.token_to_id("<s>"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[begin])
    return tokenizer


def save_tokenizer(folder: Path, tokenizer: Tokenizer, *, template: str | None, **special: str) -> Path:
    """Save it the way transformers does, template and all."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    wrapped.chat_template = template
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    inst = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    chatml = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"}
    return {
        "byte-level": save_tokenizer(root / "byte-level", byte_level(), template=CHATML, **chatml),
        "prepend": save_tokenizer(root / "prepend", byte_fallback(metaspace=False), template=INST, **inst),
        "metaspace": save_tokenizer(root / "metaspace", byte_fallback(metaspace=True), template=INST, **inst),
    }


@pytest.fixture(params=["byte-level", "prepend", "metaspace"])
def tokenizer_folder(request: pytest.FixtureRequest, tokenizer_folders: dict[str, Path]) -> Path:
    return tokenizer_folders[request.param]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder with a tiny random Llama; keywords go to its configuration and to save_pretrained."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(name: str, *, dtype: str = "float32", max_shard_size: str = "1GB", **settings: object) -> Path:
        folder = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
        small |= {"num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 128}
        config = LlamaConfig(**{**small, **settings})
        LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
        return folder

    return make
