"""Load on any OpenAI-compatible endpoint, and what came back, measured: the work of `inlay bench`.

workload.py makes the requests (prompts.py; lengths, traces and sessions are specs), loops.py and search.py say when,
preparing.py tries the server, run.py sends over target.py and exchange.py, answer.py reads the streams (events.py),
figures.py holds the definitions, records.py the result; drawing.py and plot.py make its page.
"""

from __future__ import annotations

from inlay.client.load.drawing import page, shown
from inlay.client.load.figures import keeps, tpot_of, ttft_of
from inlay.client.load.records import BenchResult, Level, Load, RequestRecord, Summary, dump_result, read_result
from inlay.client.load.run import Bench, Plan
from inlay.client.load.target import Target
from inlay.client.load.workload import Workload
from inlay.specs.slo import parse_budgets

__all__ = [
    "Bench",
    "BenchResult",
    "Level",
    "Load",
    "Plan",
    "RequestRecord",
    "Summary",
    "Target",
    "Workload",
    "dump_result",
    "keeps",
    "page",
    "parse_budgets",
    "read_result",
    "shown",
    "tpot_of",
    "ttft_of",
]
