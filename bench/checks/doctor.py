"""Find what is installed, what is missing and how to get it, for ``bench doctor``."""

import importlib
import os
import shutil
import warnings
from pathlib import Path

import torch

from bench import registry
from bench.config import settings
from bench.errors import first_line
from bench.runner.environment import PACKAGES, device, environment
from bench.runner.precision import native
from bench.training.kernels import wrong_kernels
from bench.training.speed import bf16

NEEDED_BY = {
    "torchvision": "tasks on images from the hub",
    "transformers": "tasks on BERT",
    "huggingface-hub": "data and models from the hub",
    "pyarrow": "data from the hub",
    "torch-geometric": "comparisons with its layers",
}


def examine() -> list[dict[str, str]]:
    """Return one row for each thing that was checked: what, ok or missing (or a warning, where it works but slowly), and what to
    do."""
    here = environment()
    rows = [_row("python", True, here["python"])]
    for package in PACKAGES:
        module = {"ticket-bench": "bench"}.get(package, package.replace("-", "_"))
        try:
            with warnings.catch_warnings(action="ignore"):  # how packages fit together
                importlib.import_module(module)
            rows.append(_row(package, True, here["packages"][package] or "from this folder"))
        except Exception as error:  # a torchvision that does not match torch raises RuntimeError
            whose = NEEDED_BY.get(package, "everything")
            rows.append(_row(package, False, f"{first_line(error)}; needed by {whose}: pip install -U torch {package}"))
    lacking = "" if torch.cuda.is_available() else "; no CUDA device: use protocol=smoke or desk"
    rows.append(_row("device", True, f"{here['device']}, {here['threads']} threads{lacking}"))
    unit = device("auto")
    gains = ", ".join(f"{kind} {gain:.2g} x as fast" for kind, gain in bf16(unit).items())
    about = (
        "native, so train.precision=auto takes it"
        if native(unit)
        else "only emulated here, so train.precision=auto takes fp32 and train.precision=bf16 is to be avoided"
    )
    rows.append(_row("bf16", native(unit), f"{about}; measured beside fp32: {gains}", "warning"))
    rows.append(_kernels())
    rows += [_folder("data", "BENCH_DATA", "*/*/"), _folder("models", "BENCH_MODELS", "**/config.json")]
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    rows.append(_row("disk", free > 2, f"{free:.0f} GiB free here" + ("" if free > 2 else ": stages need more; give store=DIR")))
    for name in registry.names("tasks"):
        try:
            (setting,) = settings(name, ["protocol=smoke"])
            registry.adapter(setting.folder, setting.config["task"]["adapter"])
            rows.append(_row(f"tasks/{name}", True, "found, and its smoke protocol composes"))
        except Exception as error:
            rows.append(_row(f"tasks/{name}", False, str(error)))
    return rows


def _kernels() -> dict[str, str]:
    """Return whether layers compute on this CPU what they should."""
    wrong = wrong_kernels(guarded=False)
    if not wrong:
        return _row("kernels", True, "convolutions, linear layers and batch norm are right here, to rounding")
    left = wrong_kernels(guarded=True)
    if not left:
        return _row("kernels", True, f"wrong on this CPU in this PyTorch, and the suite goes around them: {'; '.join(wrong)}")
    remedy = "install another version of torch, or train on another machine"
    return _row("kernels", False, f"wrong, and the suite does not go around them: {'; '.join(left)}; {remedy}")


def _folder(what: str, variable: str, pattern: str) -> dict[str, str]:
    """Return what the folder holds that an environment variable names."""
    root = os.environ.get(variable)
    if root is None:
        return _row(what, True, f"{variable} is not set: they come from the hub when first used")
    if not Path(root).is_dir():
        return _row(what, False, f"{variable}={root} is no folder: unset it, or point it at a mirror in the hub's layout")
    found = {str((p if p.is_dir() else p.parent).relative_to(root)) for p in Path(root).glob(pattern)}
    about = f"has {', '.join(sorted(found)) or 'nothing'}; what is not there counts as missing, unless the variable is unset"
    return _row(what, True, f"{variable}={root} {about}")


def _row(what: str, fine: bool, about: str, otherwise: str = "missing") -> dict[str, str]:
    return {"what": what, "result": "ok" if fine else otherwise, "about": about}
