"""Rows of XLA's table of operators against torch, a line each, many in one program: each result is compared by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conformance_world import need
from lines import lines_of, worst_error


def numbers() -> tuple[torch.Tensor, ...]:
    """Two of [4, 6] with both signs, one of positive numbers."""
    return torch.randn(4, 6), torch.randn(4, 6), torch.rand(4, 6) + 0.5


def whole() -> tuple[torch.Tensor, ...]:
    """Whole numbers, some beyond 32 bits; others small and positive; and bools."""
    large = torch.randint(-9, 9, (4, 6)) + torch.tensor([0, 2**40, -(2**35), 0, 1, 2])
    return large, torch.randint(1, 4, (4, 6)), torch.rand(4, 6) > 0.5


def pictures() -> tuple[torch.Tensor, ...]:
    """Images, filters of a convolution, filters of a transposed one."""
    return torch.randn(2, 4, 9, 8), torch.randn(6, 2, 3, 3) * 0.3, torch.randn(4, 3, 3, 2) * 0.3


GROUPS: dict[str, tuple[Callable[[], tuple[torch.Tensor, ...]], str]] = {
    "arithmetic": (
        numbers,
        """
        a + b
        torch.add(a, b, alpha=2)
        3 - a
        a * 2
        a / c
        torch.div(a, c, rounding_mode="floor")
        torch.div(a, c, rounding_mode="trunc")
        a // c
        a % c
        torch.fmod(a, c)
        a ** 2
        c ** 0.5
        c ** a
        2.0 ** a
        a ** 3
        torch.maximum(a, b)
        torch.atan2(a, b)
        torch.lerp(a, b, 0.3)
        torch.lerp(a, b, c)
        torch.addcmul(a, b, c, value=2)
        torch.addcdiv(a, b, c)
        torch.rsqrt(c)
        torch.reciprocal(c)
        a.abs().log1p()
        torch.expm1(a)
        torch.erf(a)
        a.round()
        torch.round(a, decimals=1)
        a.trunc()
        a.frac()
        a.sign()
        torch.logaddexp(a, b)
        torch.clamp(a, -0.5, 0.5)
        torch.clamp(a, min=b)
        torch.where(a > b, a, 0.0)
        a.masked_fill(b > 0, float("-inf"))
        torch.nan_to_num(a / (a * 0))
        torch.isfinite(a / 0)
        a == b
        torch.logical_xor(a > 0, b > 0)
        (a > 0) & ~(b > 0)
        torch.sinh(a)
        """,
    ),
    "activations": (
        numbers,
        """
        F.gelu(a)
        F.gelu(a, approximate="tanh")
        F.silu(a)
        F.mish(a)
        F.relu6(a * 5)
        F.hardswish(a * 3)
        F.hardsigmoid(a * 3)
        F.hardtanh(a)
        F.leaky_relu(a, 0.2)
        F.elu(a)
        F.celu(a, 0.7)
        F.selu(a)
        F.softplus(a * 9, 2.0)
        F.glu(a)
        F.logsigmoid(a)
        F.prelu(a, c[0, :1])
        F.threshold(a, 0.1, 9.0)
        torch.logit(c / 4)
        F.softsign(a)
        F.tanhshrink(a)
        torch.softmax(a, 0)
        torch.log_softmax(a, -1)
        torch.logsumexp(a, (0, 1))
        F.layer_norm(a, (6,), b[0], c[0])
        F.rms_norm(a, (6,), b[0])
        F.group_norm(a, 2, b[0], c[0])
        F.batch_norm(a, b[0], c[0], c[1], b[1])
        """,
    ),
    "reductions": (
        numbers,
        """
        a.sum()
        a.sum(0, keepdim=True)
        a.mean((0, 1))
        c.prod(1)
        a.amax(1)
        a.max(1)
        a.min()
        a.argmax()
        a.argmin(1, keepdim=True)
        a.var(1)
        a.std(0, unbiased=False)
        torch.var_mean(a, 1, correction=2, keepdim=True)
        a.var()
        torch.linalg.vector_norm(a, 3, 1)
        a.norm(dim=1)
        F.normalize(a, dim=1)
        a.cumsum(1)
        c.cumprod(0)
        a.diff(dim=1, n=2)
        a.diff(dim=1, prepend=b)
        a.sort(1, descending=True)
        a.argsort(0)
        a.topk(3)
        a.topk(2, 0, largest=False)
        (a > 0).any(1)
        (a > -9).all()
        torch.histc(a, 5, -1, 1)
        torch.bucketize(a, c[0].sort()[0])
        torch.fft.fft(a).abs()
        torch.fft.fft2(a).real
        torch.fft.rfft(a).imag
        torch.fft.irfft(torch.fft.rfft(a))
        torch.view_as_real(torch.complex(a, b) * torch.polar(c, a))
        """,
    ),
    "shapes": (
        numbers,
        """
        a.reshape(2, 12)
        a.T
        a[1]
        a[:, -4:-1:2]
        a.unflatten(1, (2, -1)).permute(2, 0, 1)
        a.unsqueeze(-1).squeeze()
        a[:1].expand(3, -1)
        a.repeat(2, 1, 2)
        a.repeat_interleave(2, 1)
        a.roll((1, -2), (0, 1))
        a.roll(5)
        a.flip(0)
        torch.cat([a, b], 1)
        torch.stack([a, b], 1)
        a.split(4, 1)
        a.split([1, 2, 3], 1)
        a.chunk(4, 1)
        a.unbind(1)
        torch.tensor_split(a, 4, 1)
        a.tril(-1)
        a.triu(1)
        a.diagonal(1)
        a.unfold(1, 3, 2)
        F.pad(a, (1, 2, 0, 1), value=7)
        F.pad(a, (-1, 2))
        F.pad(a[None], (2, 1), "reflect")
        F.pad(a[None], (2, 1), "replicate")
        F.pad(a[None], (2, 1), "circular")
        torch.full((2, 3), 1.5) + a[:2, :3]
        torch.full_like(a, 2)
        a.new_full((2,), 3)
        torch.arange(0.5, 3, 0.7) + a[0, :4]
        torch.linspace(0, 1, 6) * a
        torch.eye(4, 6) * a
        torch.meshgrid(a[0], b[1], indexing="xy")
        F.pixel_shuffle(a.reshape(1, 4, 2, 3), 2)
        F.pixel_unshuffle(a.reshape(1, 1, 4, 6), 2)
        F.unfold(a.reshape(1, 1, 4, 6), (2, 3), stride=(2, 1))
        a.movedim(0, 1)
        torch.empty_like(a).copy_(b)
        a.to(torch.float64).to(torch.int32)
        """,
    ),
    "whole numbers": (
        whole,
        """
        a + b
        a * b
        a // b
        a % b
        -a // b
        torch.div(a, b, rounding_mode="trunc")
        a / b
        b ** 3
        a.sum(1)
        a.cumsum(0)
        c.sum()
        c.cumsum(1)
        a > 2.5
        a & b
        b << 2
        a >> 1
        ~a
        a.to(torch.int32)
        a.float().mean()
        c * a
        c | (a > 0)
        a.abs()
        F.one_hot(b, 6)
        a.sort(1)
        a.max(1)
        torch.where(c, a, -1)
        a.clamp(-5, 2 ** 36)
        torch.isin(b, b[0, :2])
        b.to(torch.int8) * 70
        b.to(torch.uint8) - 7
        (a * 0.5, b + 0.5)
        a == 2 ** 40
        a.gather(1, b)
        a[b, b]
        a[:, b[0]]
        a[-b[0] + 1 - 1]
        a.scatter(1, b, a * 2)
        a.float().scatter_add(0, b % 4, a.float() * 0 + 1)
        a.scatter(1, b[:, :1], 5)
        a.index_select(1, b[0])
        a.index_put((b[0] % 4,), a[:1].expand(6, 6) * 0)
        a.masked_fill(c, 3)
        a.index_put((c,), torch.tensor(7))
        a.float().index_add(0, b[:, 0] % 4, a.float(), alpha=2)
        torch.slice_scatter(a, a[:, :3] * 0, 1, 0, 6, 2)
        torch.select_scatter(a, a[0] * 0, 0, 2)
        F.embedding(b, a.float())
        torch.take_along_dim(a, b % 4, 0)
        a.index_fill(1, b[0], 1)
        """,
    ),
    "products": (
        numbers,
        """
        a @ b.T
        torch.addmm(a[:4, :4], a, b.T, beta=2, alpha=3)
        F.linear(a, b, c[0, :4])
        torch.einsum("ij,kj->ik", a, b)
        torch.outer(a[0], b[0])
        a @ b[0]
        torch.bmm(a[None], b.T[None])
        F.bilinear(a[:, :2], b[:, :2], c[:, :4].reshape(4, 2, 2), c[:, 0])
        attend(a[None, None], b[None, None], c[None, None])
        attend(a[None, None], b[None, None], c[None, None], is_causal=True, scale=0.3)
        attend(a[None, None], b[None, None], c[None, None], attn_mask=torch.ones(4, 4, dtype=torch.bool).tril(-1))
        attend(a.reshape(1, 4, 2, 3), b.reshape(1, 4, 2, 3)[:, :2], c.reshape(1, 4, 2, 3)[:, :2], enable_gqa=True)
        F.cosine_similarity(a, b)
        torch._weight_norm(a, c[:, :1], 0)
        torch._weight_norm(a, c[:1], 1)
        """,
    ),
    "pictures": (
        pictures,
        """
        F.conv2d(a, b, groups=2, stride=2, padding=(1, 2))
        F.conv2d(a, b, groups=2, padding="same", dilation=2)
        F.conv2d(a[0], b, groups=2)
        F.conv1d(a[:, :, 0], b[:, :, 0], groups=2, padding=1)
        F.conv_transpose2d(a, c, stride=2, padding=1, output_padding=1)
        F.conv_transpose2d(a, c, groups=2, dilation=(1, 2))
        F.conv_transpose1d(a[:, :, 0], c[:, :, 0], stride=3)
        F.max_pool2d(a, 3, 2, 1)
        F.max_pool2d(a, 2, ceil_mode=True)
        F.max_pool2d(a, 3, 2, dilation=2)
        F.max_pool1d(a[:, :, 0], 3)
        F.avg_pool2d(a, 3, 2, 1)
        F.avg_pool2d(a, 3, 2, 1, ceil_mode=True)
        F.avg_pool2d(a, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        F.avg_pool2d(a, 2, divisor_override=3)
        F.adaptive_avg_pool2d(a, (3, 2))
        F.adaptive_avg_pool2d(a, (4, 3))
        F.adaptive_avg_pool1d(a[:, :, 0], 5)
        F.interpolate(a, scale_factor=2, mode="bilinear")
        F.interpolate(a, size=(5, 12), mode="bilinear", align_corners=True)
        F.interpolate(a, size=(13, 5), mode="bicubic")
        F.interpolate(a, scale_factor=1.7, mode="nearest")
        F.interpolate(a[:, :, 0], size=11, mode="linear")
        F.instance_norm(a)
        F.group_norm(a, 2, a[0, :, 0, 0])
        F.batch_norm(a, a[0, :, 0, 0], a[0, :, 1, 0] ** 2 + 1, a[0, :, 2, 0])
        F.channel_shuffle(a, 2)
        F.pad(a, (1, 2, 3, 1), "reflect")
        """,
    ),
}


@pytest.mark.parametrize("group", GROUPS)
def test_rows_of_the_table_give_what_torch_gives(group: str, tmp_path: Path) -> None:
    need("xla")
    torch.manual_seed(0)
    make, text = GROUPS[group]
    lines = lines_of(text)
    print(f"{group}: {len(lines)} lines, {worst_error('xla', lines, make(), tmp_path):.1e}")
