"""Greedy tokens equal Hugging Face's, through every backend alone and every split of two, for many architectures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import zoo
from comparing import compare
from forced import forced_error
from serving import backends_present, deployment, generate, places, running
from truth import Truth, continuations, forced_logits, load, prompts

from inlay.specs.generation import GenerationParameters, Placement

NEW_TOKENS = 32
QUICK = ("demo",)
QUICK_PROMPTS = 12
SLOW = ("inductor", "xla")  # compile for half a minute a model or longer: the quick run has them for the demo model
GREEDY = GenerationParameters(max_tokens=NEW_TOKENS, temperature=0.0, ignore_eos=True)
FORCED_TOLERANCE = 1e-4


def show(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def folder_of(name: str, directory: Path) -> Path:
    return zoo.DEMO_TARGET if name == "demo" else zoo.build(name, directory / name)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", ["demo", *zoo.NAMES])
def test_greedy_tokens_are_those_of_the_reference_through_every_place_and_every_split(name, tmp_path, all_models) -> None:
    if name not in QUICK and not all_models:
        pytest.skip("a model of the long run: make tokens")
    folder = folder_of(name, tmp_path)
    backends = [item for item in backends_present() if all_models or name == "demo" or item not in SLOW]
    model = load(folder)
    given = prompts(50 if all_models else QUICK_PROMPTS, vocabulary=4096)
    truths = continuations(model, given, new_tokens=NEW_TOKENS)
    distinct = sum(truth.distinct for truth in truths) / len(truths)
    error = report_forced(name, folder, backends, model, truths)
    wanted = deployment(folder, backends)
    pairs = pairs_of(places(wanted), every=all_models)
    with running(wanted) as it:
        jobs = [(truth.prompt, pair) for truth in truths for pair in pairs]
        found = generate(it, jobs, parameters=GREEDY)
    unexcused = 0
    for number, pair in enumerate(pairs):
        different = compare(truths, found[number :: len(pairs)], logit_error=error)
        show(f"{name}: {pair.prefill} -> {pair.decode}: {len(truths) - len(different)} of {len(truths)} equal")
        for item in different:
            show(
                f"  prompt {item.prompt} parts at token {item.step}, reference margin {item.margin:.2e}, excused {item.excused}"
            )
            unexcused += not item.excused
    assert unexcused == 0
    if name != "demo":
        show(f"{name}: distinct tokens in a continuation, mean {distinct:.3f}")
        assert distinct >= 0.9


def pairs_of(found: list[str], *, every: bool) -> list[Placement]:
    """Every pair of places; in the quick run each place alone, and each handing over to the next one."""
    following = [*found[1:], *found[:1]]
    chosen = [(p, d) for p in found for d in found if every or d in (p, following[found.index(p)])]
    return [Placement(prefill=p, decode=d) for p, d in chosen]


def report_forced(name: str, folder: Path, backends: list[str], model: object, truths: list[Truth]) -> float:
    """Teacher-forced error of every backend against the largest absolute logit; the largest absolute error of all."""
    truth = max(truths, key=lambda item: len(item.prompt))
    ids = truth.prompt + truth.tokens
    logits = forced_logits(model, ids)
    largest, worst = float(abs(logits).max()), 0.0
    for backend in backends:
        error = forced_error(folder, backend, ids, logits)
        show(f"{name}: {backend}: logits within {error:.2e}, {error / largest:.1e} of the largest ({largest:.1f})")
        assert error <= FORCED_TOLERANCE * largest
        worst = max(worst, error)
    return worst


@pytest.mark.parametrize("fault", ["position", "last_row", "first_rows", "other_pages"])
def test_a_planted_fault_of_the_hand_off_is_seen_in_the_tokens(fault, tmp_path) -> None:
    folder = folder_of("llama", tmp_path)
    given = prompts(12, vocabulary=4096, seed=2, shortest=20)
    truths = continuations(load(folder), given, new_tokens=NEW_TOKENS)
    first, second = (name for name in backends_present() if name in ("openvino", "onnxruntime"))
    wanted = deployment(folder, [first, second], roles=[f"prefill=cpu:0/{first}", f"decode=cpu:1/{second}"])
    with running(wanted, faults={f"cpu:1/{second}": fault}) as it:
        found = generate(it, [(truth.prompt, Placement()) for truth in truths], parameters=GREEDY)
    different = compare(truths, found, logit_error=1e-4)
    show(f"planted {fault}: {len(different)} of {len(truths)} continuations part from the reference")
    assert sum(not item.excused for item in different) >= len(truths) // 2
