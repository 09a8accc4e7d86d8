"""Command line of the demo pair: make the corpus, train the tokenizer and both models, export."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch
from checkpoint import read_checkpoint
from conversations import make_conversations
from corpus import load_conversations, load_corpus, read_library, save_corpus
from evaluation import evaluate
from export import export_model
from models import build_model
from tokenizers import Tokenizer
from training import LossFunction, Trainer, distillation_loss, own_loss
from transformers import LlamaForCausalLM
from vocabulary import render, train_tokenizer
from windows import prepare_streams

HERE = Path(__file__).resolve().parent
DEFAULT_STATE = Path.home() / ".cache" / "inlay" / "demo-training"
STAGES = ("corpus", "tokenizer", "target", "draft", "export", "evaluate")
DEFAULT_BUDGETS = {"target": 5400.0, "draft": 1000.0}


def make_corpus(state: Path) -> dict[str, object]:
    """Read the standard library, make the conversations, and store both."""
    corpus = read_library()
    conversations = make_conversations(corpus.train)
    save_corpus(corpus, conversations, state)
    return {**corpus.summary(), "conversations": len(conversations)}


def make_tokenizer(state: Path) -> dict[str, object]:
    """Train the tokenizer on the training text and store the corpus as ids."""
    texts = [file.text for file in load_corpus(state).train]
    texts += [render(conversation) for conversation in load_conversations(state)]
    tokenizer = train_tokenizer(iter(texts))
    tokenizer.save(str(state / "tokenizer.json"))
    streams = prepare_streams(tokenizer, state)
    return {
        "entries": tokenizer.get_vocab_size(),
        "text_tokens": len(streams.text),
        "conversation_tokens": len(streams.conversations),
    }


def load_tokenizer(state: Path) -> Tokenizer:
    """Read the stored tokenizer."""
    return Tokenizer.from_file(str(state / "tokenizer.json"))


def load_target(state: Path, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """Build the target with the weights of its newest checkpoint, for the draft to learn from."""
    stored = read_checkpoint(state, "target")
    if stored is None:
        raise SystemExit("train the target first")
    target = build_model("target", tokenizer)
    target.load_state_dict(stored["model"])
    return target.eval()


def train_stage(stage: str, state: Path, output: Path, budget: float) -> bool:
    """Train one model until its budget of CPU seconds is used; say whether it is finished."""
    output.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(state)
    loss: LossFunction = own_loss
    if stage == "draft":
        loss = distillation_loss(load_target(state, tokenizer))
    return Trainer(stage, state, output / "train_log.jsonl", budget, tokenizer, loss).run()


def run_stage(stage: str, options: argparse.Namespace) -> bool:
    """Run one stage; say whether the next may follow."""
    state: Path = options.state
    if stage == "corpus":
        print(json.dumps(make_corpus(state)))
    elif stage == "tokenizer":
        print(json.dumps(make_tokenizer(state)))
    elif stage in DEFAULT_BUDGETS:
        budget = getattr(options, f"{stage}_budget")
        return train_stage(stage, state, options.output, budget)
    elif stage == "export":
        tokenizer = load_tokenizer(state)
        for name in DEFAULT_BUDGETS:
            export_model(name, state, tokenizer, options.output / name)
    elif stage == "evaluate":
        if not (state / "train.jsonl").exists():
            make_corpus(state)
        results = evaluate(options.output, state)
        (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        print(json.dumps(results, indent=2))
    return True


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, help="folder of the corpus and the checkpoints")
    parser.add_argument(
        "--output", type=Path, default=HERE, help="folder of the exported target and draft, the log and the results"
    )
    for name, seconds in DEFAULT_BUDGETS.items():
        parser.add_argument(
            f"--{name}-budget",
            type=float,
            default=seconds,
            metavar="SECONDS",
            help=f"CPU seconds for the {name}; may change when it is resumed",
        )
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> int:
    """Run the stage that was asked for, or those of `all` that are not done yet."""
    options = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    options.state.mkdir(parents=True, exist_ok=True)
    stages = STAGES if options.stage == "all" else (options.stage,)
    for stage in stages:
        made = {"corpus": "train.jsonl", "tokenizer": "tokens.npz"}.get(stage)
        if options.stage == "all" and made and (options.state / made).exists():
            continue
        if not run_stage(stage, options):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
