"""What is added to rows: masks along drafts and back, histories, prompt tokens to score; with the real grammar library."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from inlay.engine.grammar import GrammarCompiler, Matcher
from inlay.engine.guidance import Guidance, Guide
from inlay.models import read_tokenizer
from inlay.specs.device import BatchDone, Row, RowResult, Submit
from inlay.specs.generation import Constraint
from inlay.specs.sampling import History, SampledToken, Sampling

pytest.importorskip("llguidance")
FOLDER = Path(__file__).parents[3] / "demo" / "target"
TOKENIZER = read_tokenizer(FOLDER)
COMPILER = GrammarCompiler(TOKENIZER, vocabulary=4096, ends=(1, 2))
PROMPT = (0, 40, 50, 60, 50)
PLAIN = Sampling()


def matcher(regex: str) -> Matcher:
    return COMPILER.compile(Constraint(kind="regex", text=regex))


def ids(text: str) -> tuple[int, ...]:
    """One token a character, so that a test can count."""
    found = tuple(TOKENIZER.encode(character, add_special=False)[0] for character in text)
    assert len(found) == len(text)
    return found


def allowed(mask: bytes) -> set[int]:
    return {token for token in range(len(mask) * 8) if mask[token // 8] >> token % 8 & 1}


def texts(mask: bytes) -> set[str]:
    return {TOKENIZER.token_text(token) for token in allowed(mask)}


def decode_row(generated: tuple[int, ...], drafts: tuple[int, ...] = (), sequence: int = 1) -> Row:
    """A decode or verify row: the newest committed token, then guesses."""
    known = (*PROMPT, *generated)
    return Row(
        sequence=sequence, slot=0, tokens=(known[-1], *drafts), past_length=len(known) - 1, sample=PLAIN, drafts=len(drafts)
    )


def test_a_row_gets_one_mask_and_the_matcher_follows_what_is_emitted() -> None:
    guide = Guide(PROMPT, sampling=PLAIN, matcher=matcher("a(b|c)d"))
    assert texts(guide.prepare(decode_row(()), batch=1).masks[0]) == {"a", "ab", "ac"}
    for token in ids("ac"):
        guide.emitted(token)
    (mask,) = guide.prepare(decode_row(ids("ac")), batch=2).masks
    assert texts(mask) == {"d"} and len(mask) == 512 and not guide.is_complete
    guide.emitted(ids("d")[0])
    assert guide.is_complete and guide.fault is None
    assert allowed(guide.prepare(decode_row(ids("acd")), batch=3).masks[0]) == {1, 2}


def test_masks_walk_along_drafts_and_back() -> None:
    guide = Guide(PROMPT, sampling=PLAIN, matcher=matcher("[0-9]{3}-[a-z]"))
    guide.emitted(ids("4")[0])
    row = guide.prepare(decode_row(ids("4"), ids("56-x")), batch=1)
    wanted = Guide(PROMPT, sampling=PLAIN, matcher=matcher("[0-9]{3}-[a-z]"))
    wanted.emitted(ids("4")[0])
    known = "4"
    for mask, character in zip(row.masks, "56-x!", strict=True):
        assert mask == wanted.prepare(decode_row(ids(known)), batch=1).masks[0]
        if character != "!":
            wanted.emitted(ids(character)[0])
            known += character
    assert guide.prepare(decode_row(ids("4")), batch=2).masks[0] == row.masks[0]


def test_after_a_draft_that_may_not_come_the_masks_are_empty() -> None:
    guide = Guide(PROMPT, sampling=PLAIN, matcher=matcher("[0-9]{3}"))
    masks = guide.prepare(decode_row((), ids("1x2")), batch=1).masks
    assert [bool(mask) for mask in masks] == [True, True, False, False]
    ends = guide.prepare(decode_row((), (*ids("123"), 1, 5)), batch=2).masks
    assert allowed(ends[3]) == {1, 2} and ends[4:] == (b"", b"")
    assert guide.prepare(decode_row(()), batch=3).masks[0] == masks[0]


def test_any_mixture_of_drafts_leaves_the_matcher_where_the_text_is() -> None:
    rng = random.Random(7)
    pattern = r'\{"[a-z ]{1,6}": (1|2|30|44)\}'
    for _ in range(60):
        guide, fresh = (Guide(PROMPT, sampling=PLAIN, matcher=matcher(pattern)) for _ in range(2))
        generated: tuple[int, ...] = ()
        while not guide.is_complete:
            drafts = tuple(rng.choice([rng.randrange(4096), 1, *ids('{"a": 1')]) for _ in range(rng.randrange(5)))
            masks = guide.prepare(decode_row(generated, drafts), batch=1).masks
            assert masks[0] == fresh.prepare(decode_row(generated), batch=1).masks[0] and len(masks) == len(drafts) + 1
            token = rng.choice(sorted(allowed(masks[0])))
            for each in (guide, fresh):
                each.emitted(token)
            generated += (token,)
        assert guide.fault is None and fresh.is_complete


def test_a_token_that_breaks_the_grammar_is_a_fault() -> None:
    guide = Guide(PROMPT, sampling=PLAIN, matcher=matcher("abc"))
    guide.emitted(ids("x")[0])
    assert guide.fault is not None and guide.fault.status == 500 and "does not fit the grammar" in guide.fault.message


def test_a_grammar_that_becomes_too_much_on_the_way_is_the_fault_of_the_request() -> None:
    constraint = Constraint(kind="lark", text='start: "b"' + ' ["a"]' * 5000)
    guidance, guide = Guidance(), Guide(PROMPT, sampling=PLAIN, matcher=COMPILER.compile(constraint))
    guidance.add(1, guide)
    guide.emitted(ids("b")[0])
    row = decode_row(ids("b"))
    message = guidance.prepare(Submit(batch=1, phase="decode", capacity=16, first=0, count=1, width=1, rows=(row,)))
    assert message.rows[0].masks == (b"",)
    ((number, fault),) = guidance.faults(message)
    assert (number, fault.status, fault.code) == (1, 400, "invalid_grammar")


def test_end_tokens_wait_where_they_are_to_be_ignored_until_nothing_else_is_left() -> None:
    patient, plain = (Guide(PROMPT, sampling=PLAIN, matcher=matcher("ab?"), ignores_end=flag) for flag in (True, False))
    for guide in (patient, plain):
        guide.emitted(ids("a")[0])
    assert texts(patient.prepare(decode_row(ids("a")), batch=1).masks[0]) == {"b"}
    assert {1, 2} < allowed(plain.prepare(decode_row(ids("a")), batch=1).masks[0])
    patient.emitted(ids("b")[0])
    assert allowed(patient.prepare(decode_row(ids("ab")), batch=2).masks[0]) == {1, 2}


def test_a_history_has_the_prompt_only_where_repetition_counts() -> None:
    both = Guide(PROMPT, sampling=Sampling(repetition=1.1))
    answer = Guide(PROMPT, sampling=Sampling(presence=1.0))
    for guide in (both, answer):
        guide.emitted(7)
        guide.emitted(7)
    assert both.prepare(decode_row((7, 7)), batch=1).history == History(prompt=(0, 40, 50, 60), generated=(7, 7))
    assert answer.prepare(decode_row((7, 7), (3, 4)), batch=1).history == History(generated=(7, 7))


def test_rows_that_are_not_at_the_place_of_the_text_are_left_alone() -> None:
    guide = Guide(PROMPT, sampling=Sampling(presence=1.0), matcher=matcher("abc"))
    chunk = Row(sequence=1, slot=0, tokens=PROMPT[:3], past_length=0)
    ahead = Row(sequence=1, slot=0, tokens=(5, 6), past_length=6, sample=PLAIN)
    assert guide.prepare(chunk, batch=1) == chunk
    assert guide.prepare(ahead, batch=1) == ahead


def answer(guidance: Guidance, message: Submit) -> list[tuple[int, tuple[SampledToken, ...]]]:
    """A device that says minus its own id for each target."""
    results = tuple(
        RowResult(sequence=row.sequence, targets=tuple(SampledToken(token=token, logprob=-token) for token in row.targets))
        for row in message.rows
    )
    return guidance.scored(BatchDone(batch=message.batch, results=results, started=0, ended=0, prompt_tokens=0))


def chunk(batch: int, start: int, end: int) -> Submit:
    row = Row(sequence=1, slot=0, tokens=PROMPT[start:end], past_length=start, sample=PLAIN if end == len(PROMPT) else None)
    other = Row(sequence=2, slot=1, tokens=(9,), past_length=30, sample=PLAIN)
    return Submit(batch=batch, phase="prefill", capacity=16, first=0, count=2, width=end - start, rows=(row, other))


@pytest.mark.parametrize("cuts", [(0, 5), (0, 2, 5), (0, 1, 2, 3, 4, 5), (0, 4, 5)])
def test_every_prompt_token_but_the_first_is_scored_once_however_the_prompt_is_cut(cuts) -> None:
    guidance, guide = Guidance(), Guide(PROMPT, sampling=PLAIN, score=2)
    guidance.add(1, guide)
    found = []
    for batch, (start, end) in enumerate(itertools.pairwise(cuts)):
        message = guidance.prepare(chunk(batch, start, end))
        assert message.rows[0].targets == PROMPT[start + 1 : end + 1]
        assert not message.rows[0].targets or message.rows[0].target_top == 2
        assert message.rows[1].targets == ()
        assert guide.missing > 0 or start == len(PROMPT) - 1
        found += answer(guidance, message)
    assert [(number, [item.token for item in scores]) for number, scores in found] == [(1, list(PROMPT[1:]))]
    assert guide.missing == 0


def test_a_prompt_that_is_computed_again_is_scored_where_it_was_not() -> None:
    guidance, guide = Guidance(), Guide(PROMPT, sampling=PLAIN, score=0)
    guidance.add(1, guide)
    answer(guidance, guidance.prepare(chunk(1, 0, 3)))
    lost = guidance.prepare(chunk(2, 3, 5))
    assert lost.rows[0].targets == PROMPT[4:] and guide.missing == 1
    assert guidance.prepare(chunk(3, 0, 3)).rows[0].targets == ()
    assert answer(guidance, guidance.prepare(chunk(4, 3, 5)))[0][0] == 1
    assert answer(guidance, lost) == []


def test_batches_without_guided_rows_pass_as_they_are() -> None:
    guidance = Guidance()
    message = chunk(1, 0, 5)
    assert guidance.prepare(message) is message
    guidance.add(7, Guide(PROMPT, sampling=PLAIN, matcher=matcher("a")))
    assert guidance.prepare(message) is message
    guidance.forget(7)
    assert guidance.find(7) is None
