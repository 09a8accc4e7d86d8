"""What is said in a simulation: the target's tokens, and how often a draft model agrees. Seeded; no text, only numbers.

A token is a pure function of seed, sequence and position, as under the coupled rule a target's choice is. Whether the draft
model agrees at a position, given that it has read the right text before it, is one too.
"""

from __future__ import annotations

from inlay.specs.device import Row, SlotAddress
from inlay.specs.sampling import SampledToken

BLANK = SampledToken(token=0)
"""What every answer is made of where nothing is drafted: its content then matters to nobody."""
VOCABULARY = 1 << 20
_WORD = (1 << 64) - 1
_TOKEN, _DRAFT, _NEXT = 1, 2, 3


def draw(*parts: int) -> int:
    """64 well-mixed bits of some numbers (the finaliser of splitmix64 over each)."""
    value = 0
    for part in parts:
        value = (value + part + 0x9E3779B97F4A7C15) & _WORD
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
        value ^= value >> 31
    return value


class Text:
    """All sequences of one run. `acceptance` is the share of positions at which the draft model agrees; None where nothing is
    drafted."""

    def __init__(self, *, seed: int, acceptance: float | None) -> None:
        self.seed, self.acceptance = seed, acceptance
        self._limit = 0 if acceptance is None else int(acceptance * 2**64)
        self._prompts: dict[int, tuple[int, ...]] = {}

    def begin(self, sequence: int, prompt: tuple[int, ...]) -> None:
        """A sequence has come."""
        if self.acceptance is not None:
            self._prompts[sequence] = prompt

    def end(self, sequence: int) -> None:
        """It has gone; guesses under way for it may still be made."""
        self._prompts.pop(sequence, None)

    def token(self, sequence: int, position: int) -> int:
        """The token at a position, of the prompt or of the target's answer."""
        prompt = self._prompts.get(sequence, ())
        if position < len(prompt):
            return prompt[position]
        return 0 if self.acceptance is None else draw(self.seed, _TOKEN, sequence, position) % VOCABULARY

    def judge(self, row: Row) -> tuple[SampledToken, ...]:
        """What the target says after a row: the drafts that are its own choice, and its choice after them."""
        if self.acceptance is None:
            return (BLANK,)
        at = row.past_length + len(row.tokens) - row.drafts
        found: list[SampledToken] = []
        for offset in range(row.drafts + 1):
            token = self.token(row.sequence, at + offset)
            found.append(SampledToken(token=token))
            if offset < row.drafts and row.tokens[len(row.tokens) - row.drafts + offset] != token:
                break
        return tuple(found)

    def guess(self, sequence: int, position: int, *, right: bool, alternatives: int) -> tuple[int, tuple[int, ...]]:
        """The draft model's token at a position and its next best ones. After a wrong text (`right` False) all are wrong;
        else each in turn is the target's as often as is accepted."""
        token = self.token(sequence, position)
        wrong = [(token + 1 + i) % VOCABULARY for i in range(alternatives + 1)]
        if not right:
            return wrong[0], tuple(wrong[1:])
        ranked = wrong
        for rank in range(alternatives + 1):
            kind = _DRAFT if rank == 0 else _NEXT + rank
            if draw(self.seed, kind, sequence, position) < self._limit:
                ranked = [*wrong[:rank], token, *wrong[rank:alternatives]]
                break
        return ranked[0], tuple(ranked[1:])


class DraftSlots:
    """What the slots of one draft runner hold: how many of their first rows are of the text as the target has it."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._right: dict[SlotAddress, int] = {}

    def move(self, source: SlotAddress, destination: SlotAddress, length: int) -> None:
        """Rows are copied."""
        self._right[destination] = min(length, self._right.get(source, 0))

    def feed(self, slot: SlotAddress, sequence: int, tokens: tuple[int, ...], past: int) -> bool:
        """Rows are written after `past`; whether all of the text so far is right."""
        known = 0 if past == 0 else self._right.get(slot, 0)
        if known < past:
            return False
        for offset, token in enumerate(tokens):
            if token != self._text.token(sequence, past + offset):
                self._right[slot] = past + offset
                return False
        self._right[slot] = past + len(tokens)
        return True
