"""Prefill on one chip and decode on another, priced per request: the published study of pairs of vendors, worked anew.

A roofline with stated shares of the data sheet and nothing fitted: every figure is modelled. The study is that of
arXiv 2507.19635 (Asgar, Nguyen, Katti), section 5.1: steady load, as many chips as wanted. What it leaves open: `PairTerms`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from inlay.cost.published import AS_PUBLISHED, PublishedDevice
from inlay.errors import InputError
from inlay.models.facts import Formats, ModelFacts, kv_bytes, one_pass, weight_bytes

GIGA, TERA = 1e9, 1e12
ACTIVATION_BYTES = 2.0
HOURS = 4 * 8760.0
"""Four years, by which the published table divides a price."""


@dataclass(frozen=True)
class PairDevice:
    """A row of the published table with what the study needs besides: arithmetic of two and of one byte, operations a second
    and dense; the link between chips of one kind, bytes a second in one direction."""

    row: PublishedDevice
    wide_flops: float
    narrow_flops: float
    link: float

    @property
    def name(self) -> str:
        """As published."""
        return self.row.name

    @property
    def dollars_an_hour(self) -> float:
        """The price over four years, and the operating cost."""
        return self.row.price / HOURS + self.row.operating

    def flops(self, formats: Formats) -> float:
        """Operations a second in the width of the weights."""
        return self.narrow_flops if formats.feed_forward <= 1.0 else self.wide_flops


# Dense TFLOPS in two bytes and in one, GB/s of the link: data sheets of the vendors.
_SHEETS = {
    "H100": (989.0, 1_979.0, 450.0),
    "B200": (2_250.0, 4_500.0, 900.0),
    "Gaudi 3": (1_678.0, 1_678.0, 525.0),
    "MI300X": (1_307.0, 2_615.0, 448.0),
}
_PRINTED_WIDE = {"H100": 1_979.0}


def pair_devices(*, as_published: bool = False) -> dict[str, PairDevice]:
    """The chips of the study by name. `as_published` takes H100's arithmetic in two bytes as the table prints it, which is the
    figure with sparsity; all else is dense in both. Prices and operating costs are the published ones in both."""
    rows = {row.name: row for row in AS_PUBLISHED}
    found = {}
    for name, (wide, narrow, link) in _SHEETS.items():
        wide = _PRINTED_WIDE.get(name, wide) if as_published else wide
        found[name] = PairDevice(rows[name], wide * TERA, narrow * TERA, link * GIGA)
    return found


@dataclass(frozen=True)
class PairTerms:
    """What is assumed: shares of peak arithmetic, bandwidth and memory that are reached; seconds that one sum over chips takes
    besides its bytes; how many chips one instance may have; prompts in one prefill pass, at most."""

    collective: float
    compute_share: float = 0.5
    bandwidth_share: float = 0.7
    memory_share: float = 0.9
    chip_counts: tuple[int, ...] = (1, 2, 4, 8)
    largest_prefill: int = 64

    def __post_init__(self) -> None:
        shares = (self.compute_share, self.bandwidth_share, self.memory_share)
        if self.collective < 0.0 or not all(0.0 < share <= 1.0 for share in shares) or min(self.chip_counts, default=0) < 1:
            raise InputError(
                f"terms have shares {shares}, {self.collective} s a sum and {self.chip_counts} chips, expected shares above 0 "
                "and up to 1, no negative seconds and at least one chip",
                hint="for example PairTerms(collective=10e-6)",
            )


@dataclass(frozen=True)
class PairLoad:
    """Tokens in and out of a request; seconds to the first token and between two, at most (None: no limit)."""

    input_tokens: int
    output_tokens: int
    first_token: float | None = None
    between_tokens: float | None = None


@dataclass(frozen=True)
class PhaseChoice:
    """The cheapest instance for one phase: its chips, sequences in a batch, seconds of a pass, dollars a request."""

    device: str
    chips: int
    batch: int
    seconds: float
    dollars: float


def pass_seconds(
    facts: ModelFacts, formats: Formats, device: PairDevice, terms: PairTerms, *, chips: int, batch: int, new: int, context: int
) -> float:
    """One pass over `chips` chips: the longer of arithmetic and memory, and two sums a layer over the chips. Logits are made
    for one token of a sequence."""
    count = one_pass(facts, formats, batch=batch, new=new, context=context, logit_rows=batch)
    compute = count.flops / (chips * device.flops(formats) * terms.compute_share)
    memory = count.bytes / (chips * device.row.bandwidth * GIGA * terms.bandwidth_share)
    if chips == 1:
        return max(compute, memory)
    message = 2.0 * (chips - 1) / chips * count.tokens * facts.hidden * ACTIVATION_BYTES
    return max(compute, memory) + count.collectives * (terms.collective + message / device.link)


def cheapest_prefill(
    facts: ModelFacts, formats: Formats, device: PairDevice, load: PairLoad, terms: PairTerms
) -> PhaseChoice | None:
    """The least dollars a prompt among chip counts and batches in powers of two; None where no instance keeps the limit."""
    return _cheapest(_prefills(facts, formats, device, load, terms))


def cheapest_decode(
    facts: ModelFacts, formats: Formats, device: PairDevice, load: PairLoad, terms: PairTerms
) -> PhaseChoice | None:
    """The least dollars an answer. KV of the whole request must fit; a step reads that of a request half written. The batch
    is the largest that memory and the limit allow; None where not even one sequence is within both."""
    return _cheapest(_decodes(facts, formats, device, load, terms))


def _prefills(
    facts: ModelFacts, formats: Formats, device: PairDevice, load: PairLoad, terms: PairTerms
) -> Iterator[PhaseChoice]:
    for chips in terms.chip_counts:
        room = _sequences(facts, formats, device, terms, chips=chips, context=load.input_tokens)
        batch = 1
        while batch <= min(room, terms.largest_prefill):
            seconds = pass_seconds(
                facts, formats, device, terms, chips=chips, batch=batch, new=load.input_tokens, context=0
            )  # fmt: skip
            if load.first_token is None or seconds <= load.first_token:
                yield PhaseChoice(device.name, chips, batch, seconds, _dollars(device, chips, seconds) / batch)
            batch *= 2


def _decodes(
    facts: ModelFacts, formats: Formats, device: PairDevice, load: PairLoad, terms: PairTerms
) -> Iterator[PhaseChoice]:
    whole, half = load.input_tokens + load.output_tokens, load.input_tokens + load.output_tokens // 2
    for chips in terms.chip_counts:
        low, high = 0, _sequences(facts, formats, device, terms, chips=chips, context=whole)
        while low < high:  # a step grows with its batch: the last one within the limit
            middle = (low + high + 1) // 2
            seconds = pass_seconds(facts, formats, device, terms, chips=chips, batch=middle, new=1, context=half)
            within = load.between_tokens is None or seconds <= load.between_tokens
            low, high = (middle, high) if within else (low, middle - 1)
        if low:
            seconds = pass_seconds(facts, formats, device, terms, chips=chips, batch=low, new=1, context=half)
            yield PhaseChoice(
                device.name, chips, low, seconds, _dollars(device, chips, seconds * load.output_tokens) / low
            )  # fmt: skip


def _sequences(facts: ModelFacts, formats: Formats, device: PairDevice, terms: PairTerms, *, chips: int, context: int) -> int:
    """How many sequences of `context` tokens fit beside the weights."""
    free = chips * device.row.memory * GIGA * terms.memory_share - weight_bytes(facts, formats)
    return max(0, int(free / kv_bytes(facts, formats, context)))


def _dollars(device: PairDevice, chips: int, seconds: float) -> float:
    return chips * device.dollars_an_hour * seconds / 3600.0


def _cheapest(choices: Iterator[PhaseChoice]) -> PhaseChoice | None:
    return min(choices, key=lambda choice: (choice.dollars, choice.chips), default=None)


def pair_dollars(
    facts: ModelFacts, formats: Formats, prefill: PairDevice, decode: PairDevice, load: PairLoad, terms: PairTerms
) -> float | None:
    """Dollars a request, prefill and decode together; None where either phase cannot keep its limit. The hand-off is not
    charged, as in the published study."""
    first = cheapest_prefill(facts, formats, prefill, load, terms)
    second = cheapest_decode(facts, formats, decode, load, terms)
    return first.dollars + second.dollars if first and second else None
