"""The kinds of devices that IREE makes code for, and what its compiler is told for each. Imports no SDK."""

from __future__ import annotations

LOCAL = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu")
STACK = "--iree-llvmcpu-stack-allocation-limit=131072"  # by default 32 KiB, too little for a row of attention
HOST = (*LOCAL, "--iree-llvmcpu-target-cpu=host", STACK, "--iree-llvmcpu-debug-symbols=false")
VULKAN = "--iree-hal-target-device=vulkan"

TARGETS = {
    "cpu-aarch64": "Arm CPU, 64 bits, as Neoverse N1",
    "cpu-riscv64": "RISC-V CPU, 64 bits, with vectors",
    "cuda-sm80": "NVIDIA GPU of compute capability 8.0, as A100",
    "cuda-sm86": "NVIDIA GPU of compute capability 8.6, as RTX 3090",
    "cuda-sm89": "NVIDIA GPU of compute capability 8.9, as L4",
    "metal": "Apple GPU",
    "rocm-gfx1100": "AMD GPU gfx1100, as RX 7900 XTX",
    "rocm-gfx942": "AMD GPU gfx942, as MI300X",
    "vulkan": "any Vulkan device of the baseline of 2022, in software too",
    "vulkan-adreno": "Qualcomm Adreno GPU",
    "vulkan-mali": "Arm Mali GPU of the fourth Valhall generation",
}
RUNNABLE = ("vulkan",)

_FLAGS = {
    # Nothing with SVE: for sizes that are not known its compiler takes memory without end (3.13.0, cores V1 and V2).
    "cpu-aarch64": (
        *LOCAL,
        "--iree-llvmcpu-target-triple=aarch64-unknown-linux-gnu",
        "--iree-llvmcpu-target-cpu=neoverse-n1",
        STACK,
    ),
    "cpu-riscv64": (
        *LOCAL,
        "--iree-llvmcpu-target-triple=riscv64-unknown-linux-gnu",
        "--iree-llvmcpu-target-cpu=generic-rv64",
        "--iree-llvmcpu-target-cpu-features=+m,+a,+f,+d,+c,+v,+zvl256b",
        "--iree-llvmcpu-target-abi=lp64d",
        STACK,
    ),
    "cuda-sm80": ("--iree-hal-target-device=cuda", "--iree-cuda-target=sm_80"),
    "cuda-sm86": ("--iree-hal-target-device=cuda", "--iree-cuda-target=sm_86"),
    "cuda-sm89": ("--iree-hal-target-device=cuda", "--iree-cuda-target=sm_89"),
    "metal": ("--iree-hal-target-device=metal",),
    "rocm-gfx1100": ("--iree-hal-target-device=hip", "--iree-rocm-target=gfx1100"),
    "rocm-gfx942": ("--iree-hal-target-device=hip", "--iree-rocm-target=gfx942"),
    "vulkan": (VULKAN, "--iree-vulkan-target=vp_android_baseline_2022"),
    "vulkan-adreno": (VULKAN, "--iree-vulkan-target=adreno"),
    "vulkan-mali": (VULKAN, "--iree-vulkan-target=valhall4"),
}  # fmt: skip


def flags_for(target: str) -> tuple[str, ...]:
    """What the compiler is told; the empty target is this machine's CPU."""
    return _FLAGS[target] if target else HOST
