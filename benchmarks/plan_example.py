"""The example of the planner, as `inlay plan` answers it: gpt-oss-120b at 8K/1K on B200 with drafts there, or on Corsair cards.

Leaves the answer's text, the time it took, and the drawing of throughput per kW. The chips are imagined: all modelled.
"""

from __future__ import annotations

import time

from measuring import RESULTS, ROOT, environment, say, write_result

from inlay.api import planning

CLUSTER = ROOT / "examples" / "clusters" / "b200-corsair.yaml"
DRAWING = ROOT / "docs" / "images" / "plan-per-kilowatt.svg"


def main() -> None:
    began = time.perf_counter()
    fleet, trip = planning.fleet_and_trip(CLUSTER)
    question = planning.Question(
        model="gpt-oss-120b",
        fleet=fleet,
        load=planning.parse_load("isl=8192,osl=1024"),
        budgets=planning.parse_budgets("ttft:1000"),
        floor=300.0,
        draft=planning.parse_draft("1.6b", acceptance=0.80),
        own_draft=planning.parse_draft("0.8b/1", acceptance=0.75),
        drafting=planning.DraftingAssumptions(round_trip=trip or 60e-6),
    )
    found = planning.plan(question, prices=planning.price_list(fleet), progress=say)
    seconds = time.perf_counter() - began
    (chart,) = [chart for chart in found.report.charts if chart.name == "Throughput per kW"]
    DRAWING.write_text(planning.picture(found.report, chart) + "\n", encoding="utf-8")
    text = (
        f"{found.answer.searched:,} candidates searched, their frontiers on four axes, sensitivity and report: {seconds:.1f} s "
        f"(measured; the goal was 120). All figures of the plan are modelled.\n\n```text\n{planning.text(found.report)}```\n"
    )
    records = {"seconds": seconds, "candidates": found.answer.searched, "report": planning.told(found.report)}
    write_result(
        "plan_example",
        title="What `inlay plan` answers for the example",
        facts=environment() | {"grade": "modelled"},
        records=records,
        text=text,
        folder=RESULTS,
    )


if __name__ == "__main__":
    main()
