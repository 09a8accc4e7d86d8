"""What ExecuTorch takes, and the packages it needs. Imports no SDK.

XNNPACK takes what it knows (convolutions, matrix products, element-wise arithmetic in float32), its portable kernels the
rest, one operator at a time. A run holds Python's global lock from beginning to end, so a device process runs nothing
else beside it. Executing needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from inlay.backends.refusal import RANDOM, Rules, argument
from inlay.graph import Node, Program, Tensor
from inlay.specs.capability import Capability

NAME = "executorch"
PACKAGES = ("executorch",)
ENVIRONMENT = "executorch"
LOWERED_WITH = ("torchao",)  # in the cache key only: an artifact is loaded without it
# Those that neither have a kernel in the runtime of 1.4.1 nor become others that have one, by torch's table of decompositions.
REFUSED = dict.fromkeys(
    (
        "aten._adaptive_avg_pool3d", "aten._aminmax", "aten._embedding_bag", "aten._fft_c2c",
        "aten._grouped_mm", "aten._logcumsumexp", "aten._scaled_mm", "aten._trilinear", "aten._unique2",
        "aten._upsample_bicubic2d_aa", "aten.adaptive_avg_pool3d", "aten.adaptive_max_pool1d", "aten.adaptive_max_pool2d",
        "aten.adaptive_max_pool3d", "aten.addbmm", "aten.addmv", "aten.angle", "aten.argsort", "aten.as_strided_scatter",
        "aten.avg_pool3d", "aten.bincount", "aten.bucketize", "aten.cholesky", "aten.cholesky_solve", "aten.conv3d",
        "aten.conv_tbc", "aten.conv_transpose3d", "aten.copysign", "aten.cosine_similarity", "aten.ctc_loss", "aten.cummax",
        "aten.cummin", "aten.cumprod", "aten.diagonal_scatter", "aten.digamma", "aten.dist", "aten.embedding_bag", "aten.erfc",
        "aten.erfinv", "aten.exp2", "aten.fmax", "aten.fmin", "aten.fractional_max_pool2d", "aten.fractional_max_pool3d",
        "aten.frexp", "aten.gcd", "aten.grid_sampler_3d", "aten.histc", "aten.hypot", "aten.i0", "aten.igamma", "aten.igammac",
        "aten.index_reduce", "aten.kthvalue", "aten.lcm", "aten.ldexp", "aten.lgamma", "aten.linalg_cholesky_ex",
        "aten.linalg_eig", "aten.linalg_inv_ex", "aten.linalg_lu", "aten.linalg_matrix_exp", "aten.linalg_matrix_norm",
        "aten.linalg_norm", "aten.linalg_qr", "aten.linalg_solve_triangular", "aten.linalg_vector_norm", "aten.logcumsumexp",
        "aten.max_pool3d", "aten.max_pool3d_with_indices", "aten.median", "aten.mode", "aten.msort", "aten.nanmedian",
        "aten.nanquantile", "aten.nextafter", "aten.ormqr", "aten.polar", "aten.polygamma", "aten.put", "aten.quantile",
        "aten.round.decimals", "aten.scatter.reduce", "aten.scatter.value_reduce", "aten.scatter_reduce", "aten.searchsorted",
        "aten.segment_reduce", "aten.signbit", "aten.sort", "aten.special_bessel_j0", "aten.special_bessel_j1",
        "aten.special_erfcx", "aten.special_i0e", "aten.special_i1", "aten.special_i1e", "aten.special_ndtri",
        "aten.special_zeta", "aten.triangular_solve", "aten.tril_indices", "aten.triu_indices", "aten.unique_consecutive",
        "aten.unique_dim", "aten.upsample_bicubic2d", "aten.upsample_trilinear3d",
    ),
    "ExecuTorch has no kernel for it",
)  # fmt: skip
DTYPES = {
    "complex64": "few of its kernels take complex numbers",
    "complex128": "few of its kernels take complex numbers",
}


def supports(program: Program) -> Capability:
    """Every node but those that the tables and rules refuse, at declared sizes, in a process that loads torch."""
    return Capability(backend=NAME, nodes=RULES.judge(program), dynamic=False, needs_torch=True)


def _special(node: Node, values: Mapping[str, Tensor]) -> str:
    """Reasons that lie in a node's arguments and sizes."""
    given = values.get(node.inputs[0]) if node.inputs else None
    if node.operator == "aten.convolution.default" and given is not None and len(given.shape) > 4:
        return "its convolutions have one or two axes"
    if node.operator in ("aten.pad.default", "aten.constant_pad_nd.default"):
        widths = argument(node, 1, "pad", [])
        if any(isinstance(width, int) and width < 0 for width in widths):
            return "its padding does not crop"
    return ""


RULES = Rules(backend=NAME, operators={**RANDOM, **REFUSED}, dtypes=DTYPES, special=_special)
