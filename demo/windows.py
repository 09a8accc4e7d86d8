"""The corpus as token ids, and the windows that each training step and each evaluation reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from corpus import Corpus, load_conversations, load_corpus
from tokenizers import Tokenizer
from vocabulary import BEGIN, END_OF_TEXT, render

CONVERSATION_SHARE = 8  # one row of a batch in eight is made of conversations


@dataclass(frozen=True)
class TokenStreams:
    """The training text and the conversations as ids, with the conversations' first positions."""

    text: np.ndarray
    conversations: np.ndarray
    conversation_starts: np.ndarray
    begin_id: int


def encode_streams(corpus: Corpus, conversations: list[list[dict[str, str]]], tokenizer: Tokenizer) -> TokenStreams:
    """Encode the training files, each closed by <|endoftext|>, and the conversations."""
    begin_id: int = tokenizer.token_to_id(BEGIN)
    end_id: int = tokenizer.token_to_id(END_OF_TEXT)
    files = tokenizer.encode_batch([file.text for file in corpus.train])
    text = [np.array([*file.ids, end_id], dtype=np.uint16) for file in files]
    encoded = tokenizer.encode_batch([render(conversation) for conversation in conversations])
    turns = [np.array(conversation.ids, dtype=np.uint16) for conversation in encoded]
    starts = np.cumsum([0, *(len(turn) for turn in turns)])[:-1]
    return TokenStreams(np.concatenate(text), np.concatenate(turns), starts, begin_id)


def save_streams(streams: TokenStreams, folder: Path) -> None:
    """Write the ids beside the corpus."""
    np.savez(folder / "tokens.npz", **vars(streams))


def load_streams(folder: Path) -> TokenStreams:
    """Read back what save_streams wrote."""
    with np.load(folder / "tokens.npz") as stored:
        return TokenStreams(
            stored["text"],
            stored["conversations"],
            stored["conversation_starts"],
            int(stored["begin_id"]),
        )


def prepare_streams(tokenizer: Tokenizer, folder: Path) -> TokenStreams:
    """Encode the stored corpus and store the ids."""
    streams = encode_streams(load_corpus(folder), load_conversations(folder), tokenizer)
    save_streams(streams, folder)
    return streams


def training_batch(streams: TokenStreams, step: int, rows: int, length: int, seed: int) -> torch.Tensor:
    """Return rows of `length` + 1 ids: a function of the step alone, so a resumed run repeats it.

    A row of text begins with <|begin|> wherever it is cut, and a row of conversations begins at
    the start of one.
    """
    chance = np.random.default_rng([seed, step])
    of_conversations = rows // CONVERSATION_SHARE
    batch = np.empty((rows, length + 1), dtype=np.int64)
    for row in range(rows):
        if row < of_conversations:
            last = len(streams.conversations) - length - 1
            usable = np.searchsorted(streams.conversation_starts, last, side="right")
            start = int(streams.conversation_starts[chance.integers(usable)])
            batch[row] = streams.conversations[start : start + length + 1]
        else:
            start = int(chance.integers(len(streams.text) - length))
            batch[row, 0] = streams.begin_id
            batch[row, 1:] = streams.text[start : start + length]
    return torch.from_numpy(batch)


@dataclass(frozen=True)
class ScoredWindow:
    """Ids of one window; the predictions for ids from `first_scored` on count."""

    ids: torch.Tensor
    first_scored: int


def scoring_windows(ids: list[int], begin_id: int, length: int = 512, stride: int = 256) -> Iterator[ScoredWindow]:
    """Cut a document (without <|begin|>) so that each of its ids is scored exactly once.

    Every window opens with <|begin|>, as in training. Windows overlap: after the first, the ids
    before `first_scored` serve as context only.
    """
    scored_up_to = start = 0
    while scored_up_to < len(ids):
        stop = min(start + length - 1, len(ids))
        yield ScoredWindow(torch.tensor([begin_id, *ids[start:stop]]), scored_up_to - start + 1)
        scored_up_to = stop
        start += stride
