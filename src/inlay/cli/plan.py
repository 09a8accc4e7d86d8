"""`inlay plan`: which chips should do what for a model under a load and limits, what it gives and costs, and how sure it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from inlay.api import planning
from inlay.cli.bars import progress_bar
from inlay.errors import InputError, UnsupportedError

MODEL_HELP = "a model of the catalogue, or a folder with its config.json"
WORKLOAD_HELP = "KEY=VALUE,...: isl and osl (tokens in and out), hit (share of the input that is cached)"
PRICE_HELP = "CHIP=DOLLARS once for a chip, or CHIP=DOLLARS/h; may be repeated"
CONVENTION_HELP = f"one dated set of prices: {', '.join(planning.CONVENTIONS)}"
OUT_HELP = "a folder for plan.json, report.html, and a picture of each chart"


def plan(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    cluster: Annotated[Path | None, typer.Option(help="a cluster.yaml with `fleet`")] = None,
    chips: Annotated[str, typer.Option(help="instead of a cluster: CHIP:COUNT,...")] = "",
    workload: Annotated[str, typer.Option(help=WORKLOAD_HELP)] = "isl=1024,osl=1024",
    budget: Annotated[str, typer.Option(help="budgets in ms, for example ttft:1000,tpot:20,e2e:5000")] = "",
    floor: Annotated[float | None, typer.Option(help="at least so many tokens/s for each user")] = None,
    draft: Annotated[str, typer.Option(help="a drafter that may run apart: 1.6b, 0.8b/1 (layers), or a model")] = "",
    acceptance: Annotated[float, typer.Option(help="share of its tokens that the target takes")] = 0.8,
    own_draft: Annotated[str, typer.Option(help="a drafter on the target's own chips; the same one unless given")] = "",
    own_acceptance: Annotated[float | None, typer.Option(help="of the own drafter; the same unless given")] = None,
    without: Annotated[list[str] | None, typer.Option(help="a vendor whose chips are left out")] = None,
    convention: Annotated[str, typer.Option(help=CONVENTION_HELP)] = "neocloud",
    price: Annotated[list[str] | None, typer.Option(help=PRICE_HELP)] = None,
    power: Annotated[list[str] | None, typer.Option(help="CHIP=KW all-in, where it is other than the catalogue's")] = None,
    max_dollars: Annotated[float | None, typer.Option(help="at most so many dollars an hour")] = None,
    max_kilowatts: Annotated[float | None, typer.Option(help="at most so many kW")] = None,
    axis: Annotated[
        str, typer.Option(help="judge by tokens per chip, target (chips of the model itself), kilowatt or dollar")
    ] = "kilowatt",
    round_trip: Annotated[float | None, typer.Option(help="us to the drafter and back; else as the cluster says")] = None,
    sensitivity: Annotated[bool, typer.Option(help="try which assumption would flip the choice")] = True,
    out: Annotated[Path | None, typer.Option("-o", "--out", help=OUT_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Search plans over unlike chips, owned, rentable or imagined. Every figure says how it is known. No device is needed."""
    if (cluster is None) == (not chips):
        raise InputError(
            "--cluster and --chips are both given" if chips else "neither --cluster nor --chips is given, expected one",
            hint="for example --chips b200:8,corsair:4",
        )
    fleet, trip = planning.fleet_and_trip(cluster) if cluster is not None else (planning.parse_fleet(chips), None)
    trip = trip if round_trip is None else round_trip * 1e-6
    drafting = planning.DraftingAssumptions() if trip is None else planning.DraftingAssumptions(round_trip=trip)
    apart, own = _drafts(draft, acceptance, own_draft, own_acceptance)
    question = planning.Question(
        model=model,
        fleet=fleet,
        load=planning.parse_load(workload),
        budgets=planning.parse_budgets(budget),
        floor=floor,
        draft=apart,
        own_draft=own,
        drafting=drafting,
        without=tuple(name.lower() for name in without or ()),
        cap_dollars=max_dollars,
        cap_kilowatts=max_kilowatts,
        axis=axis,
    )
    once, hourly = _prices(price)
    kilowatts = {name: _number(text, f"--power {name}") for name, text in _pairs(power, "--power CHIP=KW")}
    prices = planning.price_list(fleet, convention=convention, prices=once, hours=hourly, kilowatts=kilowatts)
    with progress_bar() as tell:
        found = planning.plan(question, prices=prices, sensitivity=sensitivity, progress=tell)
        if out is not None:
            tell("writing")
            _write(found, out)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        print(planning.text(found.report), end="")
    if out is not None:
        print(f"the report is {out / 'report.html'}", file=sys.stderr)


def _drafts(
    draft: str, acceptance: float, own_draft: str, own_acceptance: float | None
) -> tuple[planning.DraftModel | None, planning.DraftModel | None]:
    """The drafter that may run apart, and the one on the target's chips: without a word of its own, the same."""
    apart = planning.parse_draft(draft, acceptance=acceptance) if draft else None
    own = own_draft or draft
    if not own:
        return apart, None
    return apart, planning.parse_draft(own, acceptance=acceptance if own_acceptance is None else own_acceptance)


def _pairs(items: list[str] | None, form: str) -> list[tuple[str, str]]:
    found = []
    for item in items or []:
        name, equals, text = item.partition("=")
        if not name or not equals:
            raise InputError(f"{form.split()[0]} is {item!r}, expected {form.split()[1]}", hint=f"write {form}")
        found.append((name, text))
    return found


def _prices(items: list[str] | None) -> tuple[dict[str, float], dict[str, float]]:
    """Dollars once, and dollars an hour, by chip."""
    once: dict[str, float] = {}
    hourly: dict[str, float] = {}
    for name, text in _pairs(items, "--price CHIP=DOLLARS"):
        amount, slash, unit = text.partition("/")
        if slash and unit not in ("h", "hour"):
            raise InputError(f"--price of {name} is {text!r}, expected DOLLARS or DOLLARS/h", hint=f"--price {name}=9000")
        (hourly if slash else once)[name] = _number(amount, f"--price {name}")
    return once, hourly


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise InputError(f"{name} is {text!r}, expected a number above 0", hint="for example --price corsair=9000")
    return value


def _write(found: planning.Planned, folder: Path) -> None:
    """The plan and its report; pictures as SVG, and as PNG where the library for it is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    (folder / "report.html").write_text(planning.page(found.report), encoding="utf-8")
    missing = ""
    for chart, axis in zip(found.report.charts, planning.AXES, strict=True):
        drawing = planning.picture(found.report, chart)
        (folder / f"frontier-{axis}.svg").write_text(drawing, encoding="utf-8")
        try:
            (folder / f"frontier-{axis}.png").write_bytes(planning.rasterised(drawing))
        except UnsupportedError as error:
            missing = f"note: no PNG files: {error.message}; {error.hint}"
    if missing:
        print(missing, file=sys.stderr)
