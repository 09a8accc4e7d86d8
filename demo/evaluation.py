"""Measurements of the exported pair on the held-out files; bfloat16 weights, float32 arithmetic."""

from __future__ import annotations

import lzma
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as functional
from corpus import SourceFile, load_corpus
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from vocabulary import BEGIN, END_OF_TEXT, render
from windows import ScoredWindow, scoring_windows

PROMPTS = 50
PROMPT_TOKENS = 64
SAMPLE_TOKENS = 100
TEMPERATURE = 0.8
WINDOWS_AT_ONCE = 8
QUESTIONS = (
    "Hello!",
    "What does os.path.join do?",
    "Explain the `with` statement.",
    "What is the json module?",
    "What does random.shuffle do?",
    "How do I use shutil.copytree?",
)
METHOD = (
    "Each held-out file is encoded whole and closed by <|endoftext|>; every token, that one "
    "included, is scored once, in windows of 512 tokens that open with <|begin|> and advance by "
    "256; the bits are divided by the UTF-8 bytes of all files. xz -9e compresses the same files "
    "as one stream, joined in name order. Samples ignore the end tokens, so that all have the "
    "same length."
)


@dataclass
class Totals:
    """Sums over the scored tokens."""

    tokens: int = 0
    target_nats: float = 0.0
    draft_nats: float = 0.0
    overlap: float = 0.0
    agreements: int = 0


class Pair:
    """The exported target and draft with their tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder / "target")
        self.target = _load_model(folder / "target")
        self.draft = _load_model(folder / "draft")
        self.begin_id: int = self.tokenizer.convert_tokens_to_ids(BEGIN)
        self.end_id: int = self.tokenizer.convert_tokens_to_ids(END_OF_TEXT)

    def encode(self, text: str) -> list[int]:
        """Encode text without <|begin|>."""
        return list(self.tokenizer.encode(text, add_special_tokens=False, verbose=False))


def _load_model(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _add_window(totals: Totals, target: torch.Tensor, draft: torch.Tensor, labels: torch.Tensor, temperature: float) -> None:
    """Add one window's scored positions, given both models' logits there."""
    totals.tokens += len(labels)
    totals.target_nats += functional.cross_entropy(target, labels, reduction="sum").item()
    totals.draft_nats += functional.cross_entropy(draft, labels, reduction="sum").item()
    likely = functional.softmax(target / temperature, dim=-1)
    proposed = functional.softmax(draft / temperature, dim=-1)
    totals.overlap += torch.minimum(likely, proposed).sum().item()
    totals.agreements += int((target.argmax(-1) == draft.argmax(-1)).sum())


@torch.no_grad()
def score(pair: Pair, windows: list[ScoredWindow], temperature: float) -> Totals:
    """Run both models over the windows and sum up what they predict."""
    totals = Totals()
    ordered = sorted(windows, key=lambda window: len(window.ids))
    for start in range(0, len(ordered), WINDOWS_AT_ONCE):
        group = ordered[start : start + WINDOWS_AT_ONCE]
        ids = torch.nn.utils.rnn.pad_sequence([window.ids for window in group], batch_first=True, padding_value=pair.end_id)
        target = pair.target(input_ids=ids, use_cache=False).logits
        draft = pair.draft(input_ids=ids, use_cache=False).logits
        for row, window in enumerate(group):
            scored = slice(window.first_scored - 1, len(window.ids) - 1)
            labels = window.ids[window.first_scored :]
            _add_window(totals, target[row, scored], draft[row, scored], labels, temperature)
    return totals


def xz_bits_a_byte(files: list[SourceFile]) -> float:
    """Compress the files, joined in name order, as `xz -9e` does."""
    content = b"".join(file.text.encode() for file in sorted(files, key=lambda file: file.name))
    return 8 * len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)) / len(content)


@torch.no_grad()
def sample(pair: Pair, files: list[SourceFile]) -> torch.Tensor:
    """Continue prompts spread evenly over the held-out text; return prompts and samples."""
    ids = [token for file in files for token in pair.encode(file.text)]
    spread = (len(ids) - PROMPT_TOKENS) // PROMPTS
    prompts = [[pair.begin_id, *ids[n * spread : n * spread + PROMPT_TOKENS]] for n in range(PROMPTS)]
    torch.manual_seed(0)
    batch = torch.tensor(prompts)
    return pair.target.generate(
        batch,
        attention_mask=torch.ones_like(batch),
        do_sample=True,
        temperature=TEMPERATURE,
        top_k=0,
        top_p=1.0,
        min_new_tokens=SAMPLE_TOKENS,
        max_new_tokens=SAMPLE_TOKENS,
    )


def distinct_four_grams(tokens: list[int]) -> float:
    """Return the share of the runs of four tokens that are not repeats."""
    runs = [tuple(tokens[start : start + 4]) for start in range(len(tokens) - 3)]
    return len(set(runs)) / len(runs)


@torch.no_grad()
def reply(pair: Pair, question: str) -> str:
    """Answer one question with the likeliest tokens."""
    message = [{"role": "user", "content": question}]
    ids = pair.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)[
        "input_ids"
    ]
    answer = pair.target.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        temperature=None,
        max_new_tokens=SAMPLE_TOKENS,
    )
    return str(pair.tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True))


def check_template(pair: Pair) -> None:
    """Make sure that the chat template writes what the training conversations looked like."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    written = pair.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    if written != f"{BEGIN}{render(messages)}<|assistant|>":
        raise ValueError(f"the chat template wrote {written!r}")
    if list(pair.tokenizer.encode("a")).count(pair.begin_id) != 1:
        raise ValueError("an encoded text must begin with <|begin|> once")


def _held_out_figures(totals: Totals, size: int, xz: float) -> dict[str, object]:
    target_bits = totals.target_nats / math.log(2) / size
    return {
        "bytes": size,
        "tokens": totals.tokens,
        "target_nats_a_token": round(totals.target_nats / totals.tokens, 4),
        "target_bits_a_byte": round(target_bits, 4),
        "xz_bits_a_byte": round(xz, 4),
        "ratio_to_xz": round(target_bits / xz, 4),
        "draft_nats_a_token": round(totals.draft_nats / totals.tokens, 4),
        "draft_bits_a_byte": round(totals.draft_nats / math.log(2) / size, 4),
    }


def _draft_figures(totals: Totals) -> dict[str, float]:
    return {
        "acceptance": round(totals.overlap / totals.tokens, 4),
        "same_likeliest_token": round(totals.agreements / totals.tokens, 4),
    }


def evaluate(folder: Path, state: Path) -> dict[str, object]:
    """Measure the exported pair."""
    pair = Pair(folder)
    check_template(pair)
    files = load_corpus(state).held_out
    windows = [window for file in files for window in scoring_windows([*pair.encode(file.text), pair.end_id], pair.begin_id)]
    held_out = score(pair, windows, temperature=1.0)
    samples = sample(pair, files)
    own = score(pair, [ScoredWindow(row, PROMPT_TOKENS + 1) for row in samples], TEMPERATURE)
    distinct = [distinct_four_grams(row[PROMPT_TOKENS + 1 :].tolist()) for row in samples]
    size = sum(len(file.text.encode()) for file in files)
    return {
        "method": METHOD,
        "parameters": {
            name: sum(weight.numel() for weight in model.parameters())
            for name, model in (("target", pair.target), ("draft", pair.draft))
        },
        "held_out": _held_out_figures(held_out, size, xz_bits_a_byte(files)),
        "held_out_files": [file.name for file in files],
        "samples": {
            "prompts": PROMPTS,
            "tokens": SAMPLE_TOKENS,
            "temperature": TEMPERATURE,
            "distinct_four_grams_mean": round(sum(distinct) / len(distinct), 4),
            "distinct_four_grams_worst": round(min(distinct), 4),
        },
        "draft_on_held_out_text": {"temperature": 1.0, **_draft_figures(held_out)},
        "draft_on_own_samples": {"temperature": TEMPERATURE, **_draft_figures(own)},
        "replies": {question: reply(pair, question) for question in QUESTIONS},
    }
