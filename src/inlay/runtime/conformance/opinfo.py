"""A torch door: PyTorch's own samples of its operators (`op_db`) and modules (`module_db`), as cases by name and dtype."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import torch

from inlay.errors import UnsupportedError
from inlay.runtime.conformance.samples import FAILS, Sample, make_sample, unfit
from inlay.runtime.conformance.zoo import zoo_operators

FULL_DTYPES = (torch.float32, torch.int64, torch.bool)
SAMPLE_DTYPES = (torch.float32, torch.int64)
LOOKED_AT = 24
"""Of the samples of one operator; those that are tried are spread over them."""
MODULE = "nn."


@lru_cache(maxsize=1)
def operators() -> dict[str, Any]:
    """PyTorch's entries by name. Raises UnsupportedError where torch's test material cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.testing._internal.common_methods_invocations import op_db
    except ImportError as error:
        raise UnsupportedError(
            f"PyTorch's samples of its operators cannot be imported: {error}", hint="pip install 'inlay[conform]'"
        ) from error
    return {f"{item.name}.{item.variant_test_name}" if item.variant_test_name else item.name: item for item in op_db}


@lru_cache(maxsize=1)
def modules() -> dict[str, Any]:
    """PyTorch's entries for modules by name."""
    operators()
    from torch.testing._internal.common_modules import module_db

    return {item.name: item for item in module_db}


def case_names(*, full: bool) -> list[str]:
    """Every case as "name dtype". A sample of them: operators that the models of the zoo call, in float32 or int64."""
    wanted = FULL_DTYPES if full else SAMPLE_DTYPES
    called = {name.split(".")[1] for name in zoo_operators() if name.count(".") >= 2}
    found = []
    for name, entry in operators().items():
        if not full and (entry.aten_name or entry.name) not in called and name not in called:
            continue
        dtypes = [dtype for dtype in wanted if dtype in entry.supported_dtypes("cpu")]
        found += [f"{name} {_short(dtype)}" for dtype in (dtypes if full else dtypes[:1])]
    if full:
        found += [f"{name} {_short(torch.float32)}" for name, item in modules().items() if torch.float32 in item.dtypes]
    return found


def samples_of(case: str, count: int) -> tuple[list[Sample], list[str]]:
    """At most so many fit samples of a case, and the reasons of the unfit ones among those that were looked at."""
    name, _, kind = case.rpartition(" ")
    dtype = getattr(torch, kind)
    torch.manual_seed(sum(case.encode()))
    fit: list[Sample] = []
    unfit_reasons: list[str] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drawn = list(islice(_module_calls(name, dtype) if name in modules() else _calls(name, dtype), LOOKED_AT))
    except Exception as error:  # noqa: BLE001  # process edge: whatever torch's own material raises is the reason
        return [], [f"{FAILS}{type(error).__name__}"]
    spread = sorted({index * len(drawn) // count for index in range(count)}) if drawn else []
    order = [*spread, *(index for index in range(len(drawn)) if index not in spread)]
    for index in order:
        if len(fit) == count:
            break
        function, args, kwargs = drawn[index]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sample = make_sample(f"{case} #{index}", case, function, args, kwargs)
            reason = unfit(sample)
        if reason:
            unfit_reasons.append(reason)
        else:
            fit.append(sample)
    return fit, unfit_reasons


def _calls(name: str, dtype: torch.dtype) -> Iterator[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    entry = operators()[name]
    for sample in entry.sample_inputs("cpu", dtype, requires_grad=False):
        yield entry.op, (sample.input, *sample.args), dict(sample.kwargs)


def _module_calls(name: str, dtype: torch.dtype) -> Iterator[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    entry = modules()[name]
    for sample in entry.module_inputs_func(entry, device="cpu", dtype=dtype, requires_grad=False, training=False):
        if sample.forward_input is None:
            continue
        made = entry.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs).to(dtype).eval()
        yield made, tuple(sample.forward_input.args), dict(sample.forward_input.kwargs)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
