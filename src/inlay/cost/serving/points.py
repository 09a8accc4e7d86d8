"""Measured points: a CSV file of serving measurements, one configuration a row, to Configurations with what was seen."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from inlay.cost.serving.configuration import Configuration, Engine, Load
from inlay.cost.serving.terms import least_step
from inlay.errors import InlayError, InputError
from inlay.hardware.catalogue import Catalogue
from inlay.models.facts import ModelFacts, read_facts

COLUMNS = ("model", "hw", "n_chips", "precision", "isl", "osl", "concurrency", "tok_s_per_user", "framework", "tp")
PRECISIONS = {
    "fp4": "fp4",
    "mxfp4": "native",
    "fp8": "fp8",
    "bf16": "bf16",
    "fp8act": "native",
    "default": "native",
    "": "native",
}
ENGINES = {"trt": "trtllm", "trt-llm": "trtllm", "tensorrt-llm": "trtllm"}
RANDOM_LENGTHS = ("InferenceMAX", "InferenceX")  # lengths drawn from 80 to 100 % of the nominal ones
MEAN_LENGTH = 0.9
# A row is beyond its chips where each memory byte and operation would have to go faster than the data sheet by this factor.
# Two, because KV may be kept at half the width of the row's precision; of the shipped rows three are at 7.7 to 8.6, the next
# is at 1.25.
BEYOND = 2.0
IMPOSSIBLE = "faster than its chips can be: chips or load of the row are of another system"


@dataclass(frozen=True)
class MeasuredPoint:
    """One row: what was served, seconds per output token after the first, of the first, and output tokens a second and chip
    (None where the row has none). `shape` is nominal input and output tokens, `group` is (chip, model)."""

    row: int
    wanted: Configuration
    tpot: float
    ttft: float | None
    throughput: float | None
    watts: float | None
    source: str
    shape: tuple[int, int]

    @property
    def group(self) -> tuple[str, str]:
        """What cross-validation leaves out as one."""
        return self.wanted.sheet.name, self.wanted.facts.name


@dataclass(frozen=True)
class Points:
    """The usable points of a file, and by reason how many rows are not."""

    points: tuple[MeasuredPoint, ...]
    left_out: dict[str, int]


def read_points(path: str | Path, catalogue: Catalogue) -> Points:
    """The points of a CSV file with the columns of COLUMNS. A row of another kind (disaggregated, speculative, saturated,
    without latency), of an unknown chip or model, or faster than its chips can be is left out and counted.

    Raises InputError for a file that is not of this form.
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = sorted(set(COLUMNS) - set(reader.fieldnames or ()))
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise InputError(f"{file} cannot be read: {cause}", hint="give a CSV file") from cause
    if missing:
        raise InputError(f"{file} has no column {missing[0]!r}, expected {', '.join(COLUMNS)}", hint="add a header line")
    points, left_out = [], dict[str, int]()
    for index, row in enumerate(rows):
        reason = _unsuited(row)
        if reason is None:
            try:
                point = _point(index, row, catalogue)
                if least_step(point.wanted) > BEYOND * point.tpot:
                    reason = IMPOSSIBLE
                else:
                    points.append(point)
            except (InlayError, ValueError) as error:
                reason = error.message if isinstance(error, InlayError) else f"not a number: {error}"
        if reason is not None:
            left_out[reason] = left_out.get(reason, 0) + 1
    return Points(tuple(points), left_out)


def _unsuited(row: dict[str, str]) -> str | None:
    if row.get("disagg", "False") not in ("False", "false", "", "0"):
        return "disaggregated"
    if row.get("spec", "none") not in ("none", ""):
        return "speculative"
    if "SATURATED" in row.get("notes", ""):
        return "saturated: for the simulator"
    if not row["tok_s_per_user"] or not row["concurrency"] or not row["isl"].isdigit() or not row["tp"].isdigit():
        return "without latency, load or parallel degrees"
    if not row["concurrency"].isdigit():
        return "not a closed loop"
    return None


def _point(index: int, row: dict[str, str], catalogue: Catalogue) -> MeasuredPoint:
    chips, tensor, concurrency = int(row["n_chips"]), int(row["tp"]), float(row["concurrency"])
    spread = row.get("dp_attn", "") in ("true", "True")
    tensor = 1 if spread else min(tensor, chips)
    name, _, version = row["framework"].strip().partition(" ")
    scale = MEAN_LENGTH if row.get("source", "").startswith(RANDOM_LENGTHS) else 1.0
    wanted = Configuration(
        facts=_facts(row["model"]),
        sheet=catalogue.sheet(row["hw"]),
        engine=Engine(name=ENGINES.get(name, name), version=version, date=row.get("date", "")),
        precision=_precision(row),
        load=Load(input_tokens=scale * int(row["isl"]), output_tokens=scale * int(row["osl"]), concurrency=concurrency),
        chips=chips,
        tensor=tensor,
        expert=int(row.get("ep") or 1),
    )
    return MeasuredPoint(
        row=index,
        wanted=wanted,
        tpot=1.0 / float(row["tok_s_per_user"]),
        ttft=_optional(row.get("ttft_s")),
        throughput=_optional(row.get("tok_s_per_gpu")),
        watts=_optional(row.get("avg_power_w_per_chip")),
        source=row.get("source", ""),
        shape=(int(row["isl"]), int(row["osl"])),
    )


def _facts(model: str) -> ModelFacts:
    return read_facts(model)


def _precision(row: dict[str, str]) -> str:
    """A name of BYTES; a checkpoint that is published in four bits is served so."""
    if row["model"].startswith("gpt-oss"):
        return "native"
    if row["precision"] not in PRECISIONS:
        raise InputError(f"precision is {row['precision']!r}, expected one of {sorted(PRECISIONS)}", hint="correct the row")
    return PRECISIONS[row["precision"]]


def _optional(text: str | None) -> float | None:
    return float(text) if text else None
