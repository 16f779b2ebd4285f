"""What ``train.precision: auto`` means: bf16 where the device computes in it, fp32 where it would only be emulated, which takes
ten times as long and more. Which of the two it was changes how a number was made, not what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from bench.errors import unknown
from bench.training.kernels import isa_limit

AUTO, BF16, FP32 = CHOICES = ("auto", "bf16", "fp32")
ISA_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of ONEDNN_MAX_CPU_ISA under which oneDNN, which does the CPU's matrix products, has no bf16 products."""


def native(device: torch.device) -> bool:
    """Whether the device multiplies in bf16 itself: a GPU that says so, or an x86 CPU with AVX512-BF16 or AMX-BF16, unless the
    environment keeps PyTorch (ATEN_CPU_CAPABILITY) or oneDNN (ONEDNN_MAX_CPU_ISA) from using it. False where nobody knows."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and isa_limit() not in ISA_WITHOUT_BF16
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    )


def used(train: Mapping[str, Any], auto: str) -> dict[str, Any]:
    """The section ``train`` with the precision that is used, ``auto`` being the one that auto means here. A task without a
    precision is left alone."""
    if "precision" not in train:
        return dict(train)
    precision = auto if train["precision"] == AUTO else train["precision"]
    if precision not in (BF16, FP32):
        raise unknown("train.precision", str(precision), CHOICES)
    return {**train, "precision": precision}


def as_asked(identity: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """A task's identity with the precision that the section ``train`` asks for instead of the one used. Auto counts as bf16, so
    that what is asked has one name on every machine."""
    if train.get("precision") != AUTO:
        return dict(identity)
    return {**identity, "train": {**identity["train"], "precision": BF16}}
