"""Other runtimes' formats: ONNX, and the program that torch.export makes of a network."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import BenchError, UsageError, first_line
from bench.task.capabilities import Call

OPSET = 20
"""Of the ONNX files that are written unless another is asked for."""
OLDEST_OPSET = 18
"""The oldest that PyTorch's exporter writes."""

Runner = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
"""From the inputs of a ``Call`` to its outputs."""


def runner(module: Callable[..., Any]) -> Runner:
    """A module of PyTorch."""

    @torch.no_grad()
    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        output = module(*inputs)
        return (output,) if torch.is_tensor(output) else tuple(output)

    return run


def needs_onnx(*packages: str) -> None:
    """BenchError where packages of the extra are missing."""
    missing = [package for package in packages or ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(package)]
    if missing:
        raise BenchError(f"{', '.join(missing)} is not installed: pip install 'ticket-bench[onnx]'")


def check_onnx(opset: int) -> None:
    """UsageError for an opset that cannot be written, BenchError where packages of the extra are missing."""
    if opset < OLDEST_OPSET:
        raise UsageError(
            f"opset {opset} is too old: PyTorch's exporter writes {OLDEST_OPSET} and later; leave it out for {OPSET}"
        )
    needs_onnx()


def write_onnx(call: Call, path: Path, opset: int = OPSET) -> None:
    """One ONNX file, weights inside; the free sizes of the call are free."""
    check_onnx(opset)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                call.module.eval(),
                _examples(call),
                dynamo=True,
                dynamic_shapes=_free(call, named=True),
                input_names=list(call.inputs),
                output_names=list(call.outputs),
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
            assert program
            program.save(str(path), external_data=False)
        except Exception as error:  # the exporter and the converter of opsets have many of their own
            raise BenchError(f"PyTorch cannot write this network as ONNX with opset {opset} ({first_line(error)})") from None


def onnx_runner(path: Path) -> Runner:
    """ONNX Runtime on the CPU, with as many threads as PyTorch has."""
    needs_onnx("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = torch.get_num_threads(), 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        arrays = {name: tensor.detach().contiguous().numpy() for name, tensor in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(output) for output in session.run(None, arrays))

    return run


def write_pt2(call: Call, path: Path) -> None:
    """The program that torch.export makes; ``torch.export.load`` needs no class of ours to run it."""
    with _quiet(), torch.no_grad():
        try:
            torch.export.save(
                torch.export.export(call.module.eval(), _examples(call), dynamic_shapes=_free(call, named=False)), path
            )
        except Exception as error:
            raise BenchError(f"torch.export cannot take this network ({first_line(error)})") from None


def pt2_runner(path: Path) -> Runner:
    """The program of a file that was just written: parts of such files are pickles, so only one's own are to be loaded."""
    with _quiet():
        module: nn.Module = torch.export.load(path).module()
    return runner(module)


def _examples(call: Call) -> tuple[Tensor, ...]:
    """The inputs, two rows at least along every free axis: of one row an exporter concludes that there is always one."""
    examples = []
    for name, tensor in call.inputs.items():
        for axis in call.free.get(name, {}):
            tensor = tensor.repeat_interleave(2, axis) if tensor.shape[axis] == 1 else tensor
        examples.append(tensor)
    return tuple(examples)


def _free(call: Call, named: bool) -> tuple[dict[int, Any], ...]:
    """The free sizes as exporters want them: ``named``, or with bounds that are found out, such as the most positions."""
    known: dict[str, Any] = {}
    return tuple(
        {
            axis: known.setdefault(size, torch.export.Dim(size) if named else torch.export.Dim.DYNAMIC)
            for axis, size in call.free.get(name, {}).items()
        }
        for name in call.inputs
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """What exporters say of themselves is of no use to who exports."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
