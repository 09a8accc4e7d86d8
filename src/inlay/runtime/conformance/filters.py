"""What of PyTorch's own samples is not tried, each with its reason. Names as in `op_db`; a star at the end stands for any rest.

Nothing is left out silently: every name here is a skipped case of the report. What a sample itself rules out (it draws
random numbers, changes its input, has no elements) is found by running it, in `samples.unfit`.
"""

from __future__ import annotations

VIEW = "it reads memory by strides, and the inputs of a program have none"
IN_PLACE = "it changes or resizes its input, which programs never do"
RANDOM = "it draws random numbers, which no two frameworks draw alike"
UNDEFINED = "it leaves its values undefined"
AMBIGUOUS = "its result is right up to a sign or an order, so two right answers differ"
COMPLEX = "it takes or gives complex numbers only"
SIZES = "the size of its result depends on values"
PYTHON = "it gives a Python number or a truth about shapes, no tensor"
CUDA = "it exists for CUDA only"
SPARSE = "it takes or gives a sparse tensor"
INNER = "it is a kernel behind another operator, which is tried"
GRADIENT = "it is a backward pass, which no deployed program has"

FILTERED: dict[str, tuple[str, ...]] = {
    VIEW: ("as_strided", "as_strided.partial_views", "as_strided_copy", "as_strided_scatter", "view_as_real", "view_as_complex",
           "empty_strided", "new_empty_strided"),
    IN_PLACE: ("resize_", "resize_as_", "zero_", "fill"),
    RANDOM: (
        "cauchy", "exponential", "geometric", "log_normal", "normal*", "uniform", "randn", "randn_like", "rand_like", "randint",
        "randint_like", "multinomial", "bernoulli", "nn.functional.dropout*", "nn.functional.alpha_dropout",
        "nn.functional.feature_alpha_dropout*", "nn.functional.rrelu", "nn.functional.fractional_max_pool*", "svd_lowrank",
        "pca_lowrank", "nn.Dropout*", "nn.AlphaDropout", "nn.FeatureAlphaDropout", "nn.RReLU", "nn.FractionalMaxPool*",
    ),
    UNDEFINED: ("empty", "empty_like", "empty_permuted", "new_empty"),
    AMBIGUOUS: (
        "svd", "qr", "geqrf", "ormqr", "lu", "lu_unpack", "lu_solve", "linalg.svd", "linalg.qr", "linalg.eig", "linalg.eigvals",
        "linalg.eigh", "linalg.ldl_factor*", "linalg.ldl_solve", "linalg.lu*", "linalg.householder_product",
        "linalg.lstsq*", "norm.nuc", "mode", "nn.functional.max_unpool*", "nn.MaxUnpool*",
    ),
    COMPLEX: ("complex", "polar", "imag", "cdouble", "cfloat", "chalf", "istft", "nn.functional.silu.complex"),
    SIZES: ("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "combinations",
            "repeat_interleave"),
    PYTHON: ("item", "equal", "allclose", "broadcast_shapes"),
    CUDA: ("jiterator*", "torch._scaled_mm*", "torch.ops.aten._flash_attention_forward",
           "torch.ops.aten._efficient_attention_forward", "bmm.triton_optimized"),
    SPARSE: ("sparse.*", "to_sparse"),
    INNER: ("native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update"),
    GRADIENT: ("_softmax_backward_data", "native_dropout_backward", "max_pool2d_with_indices_backward",
               "linalg.norm.subgradients_at_zero"),
}  # fmt: skip


def filtered(name: str) -> str:
    """Why samples of this name are not tried, "" where they are."""
    for reason, names in FILTERED.items():
        for item in names:
            if name == item or (item.endswith("*") and name.startswith(item[:-1])):
                return reason
    return ""
