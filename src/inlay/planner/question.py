"""Question: a model, the chips a plan may use, a load, what must be kept, and by what it is judged. Frozen data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import msgspec

from inlay.errors import InputError
from inlay.hardware import Cluster, FleetChips
from inlay.hardware.catalogue import Catalogue
from inlay.planner.drafting import DraftingAssumptions, DraftModel

AXES = ("chip", "target", "kilowatt", "dollar")
"""Throughput is divided by all chips, by those that serve the model itself, by all-in kW, or by dollars an hour."""
LOAD_KEYS = ("isl", "osl", "hit")
LOAD_HINT = "write for example isl=8192,osl=1024,hit=0.5"


class SteadyLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of so many input and output tokens, of whose input the share `hit` is cached already."""

    input_tokens: float
    output_tokens: float
    hit: float = 0.0

    @property
    def prefill_share(self) -> float:
        """Input tokens computed for an output token."""
        return self.input_tokens * (1.0 - self.hit) / self.output_tokens


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """`budgets` are seconds by the names of `specs.slo`, `floor` tokens a second of one user. `draft` may run apart from the
    target, `own_draft` on the target's chips (None: no drafts there). `without` are vendors, in lower case. `cap_dollars` an
    hour and `cap_kilowatts` bound a whole plan, which is judged by `axis`, one of AXES.
    `step_factor` is what the target's steps and prompts are taken times, to see what an error of them changes."""

    model: str
    fleet: tuple[FleetChips, ...]
    load: SteadyLoad
    budgets: dict[str, float] = {}
    floor: float | None = None
    draft: DraftModel | None = None
    own_draft: DraftModel | None = None
    drafting: DraftingAssumptions = DraftingAssumptions()
    without: tuple[str, ...] = ()
    cap_dollars: float | None = None
    cap_kilowatts: float | None = None
    step_factor: float = 1.0
    axis: str = "kilowatt"

    def allowed(self, catalogue: Catalogue) -> tuple[FleetChips, ...]:
        """The fleet without the vendors that are left out. InputError names the pair where nothing is left, and vendors that no
        chip is of."""
        vendors = {catalogue.sheet(item.chip).vendor.lower() for item in self.fleet}
        known = {sheet.vendor.lower() for sheet in catalogue.sheets}
        for name in self.without:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise InputError(
                    f"without {name!r}, expected a vendor of the catalogue",
                    hint=f"did you mean {near[0]}?" if near else f"one of {', '.join(sorted(known))}",
                )
        left = tuple(item for item in self.fleet if catalogue.sheet(item.chip).vendor.lower() not in self.without)
        if not left:
            chips = ", ".join(item.chip for item in self.fleet)
            raise InputError(
                f"--without {', '.join(self.without)} contradicts the chips {chips}: all are of {', '.join(sorted(vendors))}",
                hint="add chips of another vendor, or leave out --without",
            )
        return left

    def check(self) -> None:
        """Raises InputError for what cannot be meant."""
        if self.axis not in AXES:
            raise InputError(f"axis is {self.axis!r}, expected one of {', '.join(AXES)}", hint="--axis kilowatt")
        for name, value in (("floor", self.floor), ("max dollars", self.cap_dollars), ("max kilowatts", self.cap_kilowatts)):
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} is {value}, expected a number above 0", hint="leave it out where there is no limit")
        tpot, e2e, ttft = (self.budgets.get(name) for name in ("tpot", "e2e", "ttft"))
        if e2e is not None and ttft is not None and ttft > e2e:
            raise InputError(
                f"the budgets ttft {1e3 * ttft:g} ms and e2e {1e3 * e2e:g} ms contradict each other",
                hint="lower ttft, or leave it out",
            )
        if tpot is not None and self.floor is not None and 1.0 / tpot > 4 * self.floor:
            raise InputError(
                f"the budget tpot {1e3 * tpot:g} ms asks for {1 / tpot:.0f} tokens/s per user and the floor for {self.floor:g}",
                hint="they say the same thing: leave one out",
            )


def fleet_of(cluster: Cluster) -> tuple[FleetChips, ...]:
    """The chips that a cluster offers to plans: its fleet, and one for each device that names its chip."""
    counts: dict[str, int] = {}
    for device in cluster.devices.values():
        if device.chip and device.chip not in ("cpu", "xeon"):
            counts[device.chip] = counts.get(device.chip, 0) + 1
    described = tuple(FleetChips(chip=chip, count=count, held="owned") for chip, count in counts.items())
    found = (*cluster.fleet.values(), *described)
    if not found:
        raise InputError(
            "the cluster has no fleet and no device with a chip of the catalogue", hint="add `fleet:`, or --chips b200:8"
        )
    return found


def parse_fleet(text: str) -> tuple[FleetChips, ...]:
    """Chips and counts of `b200:8,corsair:4`; all imagined. Raises InputError naming the part at fault."""
    found = []
    for part in filter(None, (item.strip() for item in text.split(","))):
        name, colon, count = part.partition(":")
        if not name or not (count or "1").isdigit() or (colon and int(count or 0) < 1):
            raise InputError(
                f"chips have {part!r}, expected CHIP:COUNT with a count from 1", hint="for example b200:8,corsair:4"
            )
        found.append(FleetChips(chip=name, count=int(count or 1)))
    twice = {item.chip for item in found if [other.chip for other in found].count(item.chip) > 1}
    if twice or not found:
        raise InputError(f"chips are {text!r}, expected each chip once, and at least one", hint="for example b200:8,corsair:4")
    return tuple(found)


def parse_load(text: str) -> SteadyLoad:
    """The load of `isl=8192,osl=1024,hit=0.5`. Raises InputError naming the part at fault."""
    found: dict[str, float] = {}
    for part in filter(None, (item.strip() for item in text.split(","))):
        key, equals, value = part.partition("=")
        if key not in LOAD_KEYS or not equals or key in found:
            raise InputError(f"workload has {part!r}, expected each of {', '.join(LOAD_KEYS)} at most once", hint=LOAD_HINT)
        try:
            found[key] = float(value)
        except ValueError:
            raise InputError(f"workload has {key} {value!r}, expected a number", hint=LOAD_HINT) from None
    load = SteadyLoad(input_tokens=found.get("isl", 1024.0), output_tokens=found.get("osl", 128.0), hit=found.get("hit", 0.0))
    _check_load(found, load)
    return load


def _check_load(found: Mapping[str, float], load: SteadyLoad) -> None:
    for key, value in (("isl", load.input_tokens), ("osl", load.output_tokens)):
        if not 1 <= value < 1e8:
            raise InputError(f"workload has {key} {found[key]:g}, expected tokens from 1", hint=LOAD_HINT)
    if not 0 <= load.hit < 1:
        raise InputError(f"workload has hit {load.hit:g}, expected a share from 0 to below 1", hint=LOAD_HINT)
