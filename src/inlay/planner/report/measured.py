"""Published measurements that belong on a question's charts: the same model and chip, at lengths near those asked for."""

from __future__ import annotations

from inlay.cost.serving import measured_points
from inlay.hardware.catalogue import Catalogue
from inlay.planner.question import Question
from inlay.planner.report.frontiers import MeasuredVertex

NEAR = 0.3  # both lengths within this share


def measured_vertices(question: Question, catalogue: Catalogue, model: str) -> tuple[MeasuredVertex, ...]:
    """Those with a throughput; `model` is the name in the catalogue of models."""
    names = {catalogue.sheet(item.chip).name: item.chip for item in question.fleet}
    asked = (question.load.input_tokens, question.load.output_tokens)
    found = []
    for point in measured_points(catalogue).points:
        chip, measured = point.group
        near = all(abs(one / other - 1.0) <= NEAR for one, other in zip(point.shape, asked, strict=True))
        if measured == model and chip in names and near and point.throughput is not None:
            wanted = point.wanted
            engine = " ".join(filter(None, (wanted.engine.name, wanted.engine.version, wanted.engine.date)))
            found.append(
                MeasuredVertex(
                    chip=names[chip],
                    interactivity=1.0 / point.tpot,
                    per_chip=point.throughput,
                    configuration=f"tp {wanted.tensor} of {wanted.chips}, {engine}, {wanted.load.concurrency:.0f} at once",
                    source=point.source,
                )
            )
    return tuple(found)
