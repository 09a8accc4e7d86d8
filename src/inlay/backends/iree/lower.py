"""Lower a captured program to IREE's bytecode, weights as leading inputs. A torch door: runs in a compile process only."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from inlay.backends.iree.rewrite import decompositions, rewrite, without_assertions
from inlay.backends.iree.support import ENVIRONMENT, NAME, PACKAGES, RULES, machine
from inlay.backends.manifest import describe, need_precision
from inlay.errors import UnsupportedError
from inlay.graph.attention import guard_masked_rows
from inlay.graph.capture import without_weights
from inlay.graph.summary import summarize
from inlay.specs.artifact import ArtifactManifest, Interface, LowerRequest

CODE_FILE = "module.vmfb"
FUNCTION = "main"
FLAGS = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
    "--iree-llvmcpu-stack-allocation-limit=131072",  # by default 32 KiB, too little for a row of attention
    "--iree-llvmcpu-debug-symbols=false",
)


def lower(exported: Any, *, interface: Interface, request: LowerRequest, directory: Path) -> ArtifactManifest:
    """Write module.vmfb, which runs any size; see the seam."""
    need_precision(NAME, request.precision)
    RULES.refuse(summarize(exported, NAME), interface)
    bare, names = without_weights(exported)
    try:
        code = _compile(_imported(guard_masked_rows(bare)), FLAGS)
    except Exception as error:  # whatever importer and compiler raise: this program does not lower here
        raise UnsupportedError(f"{NAME} cannot lower the program: {_reason(error)}") from error
    (directory / CODE_FILE).write_bytes(code)
    return describe(
        directory,
        backend=NAME,
        packages=PACKAGES,
        interface=interface,
        request=request,
        weights=names,
        environment=ENVIRONMENT,
        extra=machine(),
    )


def _imported(bare: Any) -> str:
    """The program as a function of weights and inputs in MLIR's torch dialect."""
    from iree.compiler.extras.fx_importer import FxImporter

    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning)
        plain = rewrite(without_assertions(bare).run_decompositions(decompositions()))
    importer = FxImporter()
    # Expressions of sizes would only be hints, and not every one of them can be written in MLIR.
    importer.import_program(plain, func_name=FUNCTION, import_symbolic_shape_expressions=False)
    return str(importer.module)


def _compile(text: str, flags: tuple[str, ...]) -> bytes:
    """IREE's compiler on it, a process of its own."""
    from iree import compiler

    code: bytes = compiler.compile_str(text, input_type="torch", extra_args=list(flags))
    return code


def _reason(error: BaseException) -> str:
    """The compiler's first complaints, without the code that it quotes; else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return f"{type(error).__name__}: " + "; ".join(line[:300] for line in (named or lines or ["it said nothing"])[:2])
