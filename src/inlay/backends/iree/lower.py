"""Lower a captured program to IREE's bytecode, weights as leading inputs. A torch door: runs in a compile process only."""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from inlay.backends.iree.rewrite import decompositions, rewrite, without_assertions
from inlay.backends.iree.support import ENVIRONMENT, NAME, PACKAGES, RULES, machine
from inlay.backends.iree.targets import flags_for
from inlay.backends.manifest import describe, need_precision
from inlay.errors import UnsupportedError
from inlay.graph import shape_value
from inlay.graph.attention import guard_masked_rows
from inlay.graph.capture import without_weights
from inlay.graph.summary import summarize
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest

CODE_FILE = "module.vmfb"
FUNCTION = "main"  # that of the first point where the request has points; those after it have their number behind
MEMORY_LIMIT = 8 << 30
"""Of the compiler's process: on some programs it takes memory without end, and must not take the machine's."""
FIGURES = {
    ("execution", "dispatch-count"): "dispatches",
    ("execution", "transient-memory-size"): "temporary bytes",
    ("global", "constant-size"): "constant bytes",
    ("executable", "executable-count"): "kernels",
}


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write module.vmfb, which runs any size, or the points of the request only; see the seam."""
    need_precision(NAME, request.precision)
    RULES.refuse(summarize(exported, NAME), interface)
    bare, names = without_weights(exported)
    try:
        text = _imported(_versions(guard_masked_rows(bare), len(names), interface, request.points))
        code, figures = _compile(text, flags_for(request.target))
    except UnsupportedError:
        raise
    except Exception as error:  # whatever the importer raises: this program does not lower here
        raise UnsupportedError(f"{NAME} cannot import the program: {_first_line(error)}") from error
    (directory / CODE_FILE).write_bytes(code)
    return describe(
        directory,
        backend=NAME,
        packages=PACKAGES,
        interface=interface,
        request=request,
        weights=names,
        environment=ENVIRONMENT,
        extra=machine(request.target),
        figures=figures,
    )


def _versions(bare: Any, weights: int, interface: Interface, points: Sequence[Mapping[str, int]]) -> list[Any]:
    """The program for any size, or one of fixed sizes for each point."""
    if not any(points):
        return [bare]
    placeholders = [node.meta["val"] for node in bare.graph.nodes if node.op == "placeholder"]
    found = []
    for point in points:
        shapes = [tuple(value.shape) for value in placeholders[:weights]]
        shapes += [shape_value(port.shape, point) for port in interface.inputs]
        examples = tuple(torch.zeros(shape, dtype=value.dtype) for shape, value in zip(shapes, placeholders, strict=True))
        with _quiet():
            found.append(torch.export.export(bare.module(check_guards=False), examples, strict=False))
    return found


def _imported(versions: Sequence[Any]) -> str:
    """Functions of weights and inputs in MLIR's torch dialect."""
    from iree.compiler.extras.fx_importer import FxImporter

    importer = FxImporter()
    for number, version in enumerate(versions):
        with _quiet():
            plain = rewrite(without_assertions(version).run_decompositions(decompositions()))
        # Expressions of sizes would only be hints, and not every one of them can be written in MLIR.
        name = f"{FUNCTION}{number or ''}"
        importer.import_program(plain, func_name=name, import_symbolic_shape_expressions=False)
    return str(importer.module)


def _compile(text: str, flags: Sequence[str]) -> tuple[bytes, dict[str, int]]:
    """IREE's compiler on it, in a process of its own with limited memory; the code, and what it says of it."""
    from iree.compiler.tools.binaries import find_tool

    with tempfile.TemporaryDirectory(prefix="inlay-iree-") as folder:
        source, code, told = (Path(folder) / name for name in ("program.mlir", CODE_FILE, "statistics.json"))
        source.write_text(text)
        command = [find_tool("iree-compile"), str(source), "--iree-input-type=torch", *flags, "-o", str(code)]
        command += ["--iree-scheduling-dump-statistics-format=json", f"--iree-scheduling-dump-statistics-file={told}"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            resource.prlimit(process.pid, resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
            complaint = process.communicate()[1]
        if process.returncode:
            raise UnsupportedError(f"{NAME} cannot lower the program: {_complaint(process.returncode, complaint)}")
        return code.read_bytes(), _figures(json.loads(told.read_text()))


def _figures(statistics: Mapping[str, Any]) -> dict[str, int]:
    whole = statistics["stream-aggregate"]
    return {name: int(whole[group][key]) for (group, key), name in FIGURES.items()}


def _complaint(status: int, text: str) -> str:
    """The compiler's first errors, without the code that it quotes; how it ended where it named none."""
    if "out of memory" in text:
        return f"its compiler took over {MEMORY_LIMIT >> 30} GiB"
    named = [line.partition("error: ")[2] for line in text.splitlines() if "error: " in line]
    return "; ".join(line[:300] for line in named[:2]) or f"its compiler ended with status {status}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's notes to its own developers."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        yield
