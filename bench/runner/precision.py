"""What ``train.precision: auto`` means: bf16 where the device computes in it, else fp32, because emulating bf16 takes ten times
as long or more. The precision that was used changes how a number was computed, not which experiment it belongs to."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.errors import unknown
from bench.training.kernels import isa_limit

AUTO, BF16, FP32 = CHOICES = ("auto", "bf16", "fp32")
ISA_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of ONEDNN_MAX_CPU_ISA under which oneDNN, which computes the CPU's matrix products, has no bf16 products."""


def native(device: torch.device) -> bool:
    """Return whether the device multiplies in bf16 itself: a GPU that reports it, or an x86 CPU with AVX512-BF16 or AMX-BF16,
    unless the environment keeps PyTorch (ATEN_CPU_CAPABILITY) or oneDNN (ONEDNN_MAX_CPU_ISA) from using it. False where this
    cannot be determined."""
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
    """Return the section ``train`` with the precision that is used in place of ``auto``. A task without a precision is left
    alone."""
    if "precision" not in train:
        return dict(train)
    precision = auto if train["precision"] == AUTO else train["precision"]
    if precision not in (BF16, FP32):
        raise unknown("train.precision", str(precision), CHOICES)
    return {**train, "precision": precision}


def as_asked(identity: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """Return a task's identity with the precision that the section ``train`` requests instead of the one that is used. ``auto``
    counts as bf16, so that an experiment has one name on every machine."""
    if train.get("precision") != AUTO:
        return dict(identity)
    return {**identity, "train": {**identity["train"], "precision": BF16}}
