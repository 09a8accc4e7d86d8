"""Cross-validation of the cost model on published points: time per output token, against a pure roofline on the same rows.

Three questions: a shape not seen on a chip that was, a (chip, model) not seen, a chip not seen with 0 and 2 points of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import RESULTS, environment, write_result

from inlay.cost.serving import IDEAL, MeasuredPoint, calibrate, decode_terms, scaled_to
from inlay.cost.serving.shipped import measured_points
from inlay.hardware.catalogue import read_catalogue

HERE = Path(__file__).parent
Key = tuple[object, ...]


def shape(point: MeasuredPoint) -> Key:
    return point.shape


def left_out(points: tuple[MeasuredPoint, ...], terms: np.ndarray, seen: np.ndarray, key: Callable, own: int = 0) -> np.ndarray:
    """Predictions of all rows, each from a fit without the rows of its key; `own` points of each (model, engine) of the
    held-out chip, those of least and most load, then scale it and are not judged (not a number)."""
    groups: dict[Key, list[int]] = defaultdict(list)
    for index, point in enumerate(points):
        groups[key(point)].append(index)
    found = np.full(len(points), np.nan)
    for rows in groups.values():
        kept = sorted(set(range(len(points))) - set(rows))
        fitted = calibrate([points[index].wanted for index in kept], terms[kept], seen[kept])
        parts: dict[Key, list[int]] = defaultdict(list)
        for index in rows:
            wanted = points[index].wanted
            parts[(wanted.facts.name, wanted.engine.name, wanted.precision) if own else ()].append(index)
        for part in parts.values():
            by_load = sorted(part, key=lambda index: points[index].wanted.load.concurrency / points[index].wanted.chips)
            given = [by_load[0], by_load[-1]] if own and len(part) > own else []
            for index in part:
                if index in given or (own and not given):
                    continue
                coefficients = fitted.coefficients(points[index].wanted)
                if given:
                    coefficients = scaled_to(coefficients, terms[given], seen[given])
                found[index] = terms[index] @ coefficients
    return found


def kendall(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation: pairs in the same order less those in the other, over all pairs that differ in both."""
    first, second = (np.sign(values[:, None] - values[None, :]) for values in (one, other))
    both = (first != 0) & (second != 0)
    return float((first * second)[both].mean()) if both.any() else 1.0


def judged(points: tuple[MeasuredPoint, ...], seen: np.ndarray, predicted: np.ndarray) -> dict[str, object]:
    """Median absolute error, and of the groups of one chip, model and shape: ranks and regret in tokens a second
    and chip, decode alone."""
    known = ~np.isnan(predicted)
    groups: dict[Key, list[int]] = defaultdict(list)
    for index in np.flatnonzero(known):
        point = points[index]
        groups[(*point.group, *shape(point))].append(int(index))
    ranks, regrets = [], []
    for rows in groups.values():
        if len(rows) < 5:
            continue
        rates = [
            np.array([points[row].wanted.load.concurrency / points[row].wanted.chips / values[row] for row in rows])
            for values in (seen, predicted)
        ]
        ranks.append(kendall(*rates))
        regrets.append(rates[0].max() / rates[0][int(rates[1].argmax())] - 1)
    errors = np.abs(predicted[known] / seen[known] - 1)
    return {
        "rows": int(known.sum()),
        "median error": float(np.median(errors)),
        "90 % of rows within": float(np.quantile(errors, 0.9)),
        "groups": len(ranks),
        "median rank correlation": float(np.median(ranks)),
        "median regret": float(np.median(regrets)),
        "mean regret": float(np.mean(regrets)),
    }


def main() -> None:
    found = measured_points(read_catalogue())
    points = found.points
    terms = np.array([decode_terms(point.wanted) for point in points])
    seen = np.array([point.tpot for point in points])
    predictions = {
        "pure roofline": terms @ IDEAL,
        "shape not seen": left_out(points, terms, seen, shape),
        "(chip, model) not seen": left_out(points, terms, seen, lambda point: point.group),
        "chip not seen": left_out(points, terms, seen, lambda point: point.wanted.sheet.name),
        "chip not seen, two points": left_out(points, terms, seen, lambda point: point.wanted.sheet.name, own=2),
    }
    results = {name: judged(points, seen, values) for name, values in predictions.items()}
    by_group: dict[str, dict[str, object]] = {}
    for group in sorted({point.group for point in points}):
        rows = np.array([index for index, point in enumerate(points) if point.group == group])
        by_group[" ".join(group)] = {"rows": len(rows)} | {
            name: None if np.isnan(values[rows]).all() else float(np.nanmedian(np.abs(values[rows] / seen[rows] - 1)))
            for name, values in predictions.items()
        }
    records = {"usable rows": len(points), "left out": found.left_out, "splits": results, "median error by group": by_group}
    facts = environment() | {"grade": "modelled"}
    text = page(results, by_group, len(points))
    write_result("cost_model", title="Cost model, cross-validated", facts=facts, records=records, text=text, folder=RESULTS)


def page(results: dict[str, dict[str, object]], by_group: dict[str, dict[str, object]], rows: int) -> str:
    """The same as tables."""
    columns = list(next(iter(results.values())))
    lines = [
        f"Time per output token of {rows} published points (measured), predicted (modelled) by fits that have not seen them.",
        "Rank and regret are of decode rates per chip among the configurations of one chip, model and shape,",
        "at least 5 of them. The order of levels and the strength of the prior were chosen on these same splits: the figures "
        "are somewhat kind.\n",
        f"| split | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for name, values in results.items():
        lines.append(f"| {name} | {' | '.join(_cell(column, values[column]) for column in columns)} |")
    names = list(next(iter(by_group.values())))
    lines += ["\nMedian error by chip and model:\n", f"| chip, model | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for group, values in by_group.items():
        lines.append(f"| {group} | {' | '.join(_cell(name, values[name]) for name in names)} |")
    return "\n".join(lines) + "\n"


def _cell(name: str, value: object) -> str:
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:.2f}" if "correlation" in name else f"{value:.1%}"


if __name__ == "__main__":
    main()
