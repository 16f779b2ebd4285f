"""Take a ticket out: a folder with its network, masks, record and model card.

  bench export RECORD --to DIR                      safetensors, as the hub has it: `bench.from_pretrained(DIR)` loads it
  bench export RECORD --to DIR --format onnx        and an ONNX file, any batch size (needs the extra [onnx])
  bench export RECORD --to DIR --format pt2         and the program that torch.export makes

A ticket of whole channels, heads, neurons or edges is written small. Each form is compared with the trained network on the
validation data, and nothing is written if they differ by more than rounding. `store=DIR` says where the stages are.
"""

import argparse
from pathlib import Path

from bench.export.formats import FORMATS, OPSET
from bench.verbs.arguments import add_overrides, add_ticket, ticket


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add_ticket(parser)
    add_overrides(parser)
    parser.add_argument("--to", type=Path, required=True, help="the folder to write")
    parser.add_argument("--format", choices=FORMATS, default="hf", help="what it holds besides safetensors")
    parser.add_argument("--opset", type=int, default=OPSET, help=f"of the ONNX file; default: {OPSET}")


def run(given: argparse.Namespace) -> None:
    """Write the folder of a ticket."""
    from bench.export.folder import export, sizes

    found = ticket(given, "device=cpu")
    parities = export(found, given.to, given.format, given.opset)
    print(f"{given.to}: {sizes(found, given.to)}")
    print("\n".join(map(str, parities)))
