"""ONNX: one file with the weights inside, for ONNX Runtime and everything else that reads it."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from bench.errors import BenchError, UsageError, first_line
from bench.export.formats import OPSET
from bench.export.runtimes import Runner, examples, free_sizes, quiet
from bench.task.capabilities import Call

OLDEST_OPSET = 18
"""The oldest that PyTorch's exporter writes."""


def write(call: Call, path: Path, opset: int = OPSET) -> None:
    """Write the file, of any of the call's free sizes. UsageError for an opset that cannot be written."""
    if opset < OLDEST_OPSET:
        raise UsageError(
            f"opset {opset} is too old: PyTorch's exporter writes {OLDEST_OPSET} and later; leave it out for {OPSET}"
        )
    _need("onnx", "onnxscript", "onnxruntime")
    with quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                call.module.eval(),
                examples(call),
                dynamo=True,
                dynamic_shapes=free_sizes(call, torch.export.Dim),
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


def runner(path: Path) -> Runner:
    """Return a session of ONNX Runtime on the CPU, with as many threads as PyTorch has."""
    _need("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = torch.get_num_threads(), 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        arrays = {name: tensor.detach().contiguous().numpy() for name, tensor in zip(names, inputs, strict=True)}
        return tuple(torch.from_numpy(output) for output in session.run(None, arrays))

    return run


def _need(*packages: str) -> None:
    """Raise BenchError where packages of the extra are missing."""
    if missing := [package for package in packages if not find_spec(package)]:
        raise BenchError(f"{', '.join(missing)} is not installed: pip install 'ticket-bench[onnx]'")
