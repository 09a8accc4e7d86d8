"""The formula of a chip's power against the published rows with measured watts.

    python benchmarks/power.py [--out DIR]

Measured are the watts, tokens a second and the load; the shares of arithmetic and bandwidth are modelled from them. Watts are
the chip's: what a node draws beside its chips (fans, network, supplies) is not in any row, so that is unchecked.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import RESULTS, environment, table, write_result
from scipy.optimize import nnls

from inlay.cost.chip_shares import ServedLoad, chip_shares
from inlay.cost.money import chip_watts
from inlay.cost.serving.shipped import measured_points_text
from inlay.hardware.catalogue import read_catalogue
from inlay.models.facts import formats_of, read_facts

MEAN_LENGTH = 0.9  # of nominal lengths, which are drawn from 80 to 100 %
ACCEPTED = 2.0  # assumed tokens a step of rows with drafts: their acceptance is not published
IDLES = (100.0, 140.0, 200.0, 250.0)


class Seen(NamedTuple):
    name: str
    group: str
    compute: float
    bandwidth: float
    full: float
    watts: float


def seen() -> list[Seen]:
    catalogue, found = read_catalogue(), []
    for row in csv.DictReader(measured_points_text().decode().splitlines()):
        if not row["avg_power_w_per_chip"]:
            continue
        facts, sheet, chips = read_facts(row["model"]), catalogue.sheet(row["hw"]), int(row["n_chips"])
        drafts = row["spec"] != "none"
        load = ServedLoad(
            concurrency=float(row["concurrency"]), input_tokens=MEAN_LENGTH * float(row["isl"]),
            output_tokens=MEAN_LENGTH * float(row["osl"]), output_rate=chips * float(row["tok_s_per_gpu"]),
            accepted=ACCEPTED if drafts else 1.0, width=2 if drafts else 1,
        )  # fmt: skip
        peak, power, width = sheet.peak(row["precision"]), sheet.power, sheet.tiers[-1].bandwidth
        if peak is None or power is None or width is None:
            raise SystemExit(f"{sheet.name} has no limits")
        shares = chip_shares(
            facts, formats_of(facts, row["precision"]), load, chips=chips, flops=peak.value, bandwidth=width.value
        )
        name = f"{row['hw']} x{chips}, {row['framework']} {row['precision']}, {row['isl']}/{row['osl']}, {row['concurrency']}"
        name += " (drafts)" if drafts else ""
        watts = float(row["avg_power_w_per_chip"])
        group = f"{row['framework']} {row['precision']}"
        found.append(Seen(name, group, shares.compute, shares.bandwidth, power.value, watts))
    return found


def as_printed(rows: list[Seen], idle: float) -> np.ndarray:
    """idle + (full - idle) times the larger share."""
    return np.array(
        [chip_watts(idle=idle, full=row.full, compute_share=row.compute, bandwidth_share=row.bandwidth) for row in rows]
    )


def features(rows: list[Seen]) -> np.ndarray:
    """Of a sum instead of the larger one: a constant, the share of bandwidth, the root of that of arithmetic."""
    return np.array([[1.0, row.bandwidth, row.compute**0.5] for row in rows])


def left_out(rows: list[Seen]) -> np.ndarray:
    """Each engine and precision predicted from the others (coefficients of at least 0, relative errors)."""
    watts, terms, found = np.array([row.watts for row in rows]), features(rows), np.zeros(len(rows))
    for group in {row.group for row in rows}:
        out = np.array([row.group == group for row in rows])
        weights, _ = nnls(terms[~out] / watts[~out, None], np.ones((~out).sum()))
        found[out] = terms[out] @ weights
    return found


def errors(predicted: np.ndarray, watts: np.ndarray) -> dict[str, float]:
    off = predicted / watts - 1.0
    return {"median": float(np.median(np.abs(off))), "bias": float(np.median(off)), "worst": float(np.abs(off).max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="where the results go (%(default)s)")
    arguments = parser.parse_args()
    rows, facts = seen(), environment() | {"grade": "modelled"}
    watts = np.array([row.watts for row in rows])
    whole, _ = nnls(features(rows) / watts[:, None], np.ones(len(rows)))
    tried: dict[str, np.ndarray] = {f"formula, idle {idle:.0f} W (assumed)": as_printed(rows, idle) for idle in IDLES}
    tried["the mean of all rows"] = np.full(len(rows), watts.mean())
    tried["a sum of shares, each engine left out"] = left_out(rows)
    found: dict[str, Any] = {name: errors(values, watts) for name, values in tried.items()}
    shown = [
        [name, f"{value['median']:.0%}", f"{value['bias']:+.0%}", f"{value['worst']:.0%}"] for name, value in found.items()
    ]
    formula, summed = tried["formula, idle 140 W (assumed)"], tried["a sum of shares, each engine left out"]
    each = [
        [row.name, f"{row.bandwidth:.0%}", f"{row.compute:.1%}", f"{row.watts:.0f}", f"{one:.0f}", f"{other:.0f}"]
        for row, one, other in zip(rows, formula, summed, strict=True)
    ]
    text = (
        f"{len(rows)} rows with measured watts, all of one chip and one model; InferenceX, May and June 2026. The idle power\n"
        "of the chip is in no row and on no data sheet here, so it is assumed; the row at 512 was nearly always waiting and\n"
        f"drew {watts.min():.0f} W, so idle is no more. Rows with drafts take 2 tokens a step, assumed.\n\n"
        + table(["watts of a chip", "median error", "bias (median)", "worst"], shown)
        + "\n\nThe formula, idle + (full - idle) x the larger share, is too low on every row: at a tenth to a quarter of\n"
        "either limit the chip drew a third to two thirds of its full power. Energy by it is a lower bound.\n\n"
        f"Sum over all rows: {whole[0]:.0f} W + {whole[1]:.0f} W x bandwidth share + {whole[2]:.0f} W x root of arithmetic\n"
        "share. Its form was chosen after a look at these rows, which are not independent: its error is too kind, and its\n"
        "constants are no property of the chip.\n\n"
        + table(["row", "bandwidth", "arithmetic", "measured W", "formula (idle 140 W)", "sum, left out"], each)
    )
    records = {"errors": found, "rows": [row._asdict() for row in rows], "sum": list(map(float, whole))}
    write_result("power", title="Watts of a chip", facts=facts, records=records, text=text, folder=arguments.out)


if __name__ == "__main__":
    main()
