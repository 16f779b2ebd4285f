"""The files in the folder of a ticket, and how they are checked. Nothing in a folder is ever executed, and no pickle is read.

model.safetensors   parameters and buffers, slim where the ticket is structured
masks.safetensors   which entries of the whole network are kept, one bit each
config.json         what the task says of the network (sizes, normalisation, labels); under ``ticket_bench`` the sizes of every
                    tensor, the sha256 of every file, and a seal over all of config.json
record.json         the record
README.md           the model card
tokenizer.json ...  of texts           edges.safetensors  of graphs: the edges that are kept
model.NAME          where asked for, one of ``bench.export.formats``
"""

import json
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.storage.files import canonical, file_sum, parsed, text_sum

MODEL, MASKS, CONFIG, RECORD, CARD = "model.safetensors", "masks.safetensors", "config.json", "record.json", "README.md"
SECTION, SEAL = "ticket_bench", "seal"
"""The section of config.json that is ours, and the key of its seal."""
LAYOUT = 1
"""The version of the layout, in that section."""
NEEDED = (MODEL, MASKS, RECORD)
"""The files that every folder has."""
READ = ["*.json", "*.safetensors"]
"""The files that are fetched from the hub: all that are read."""


def write_config(folder: Path, facts: dict[str, Any], section: dict[str, Any]) -> None:
    """Write config.json: the task's ``facts``, and our ``section`` with the sums of all files that are there. Call it last."""
    files = {path.name: file_sum(path) for path in sorted(folder.iterdir()) if path.name not in (CONFIG, CARD)}
    config = {**facts, SECTION: {"layout": LAYOUT, **section, "files": files}}
    config[SECTION][SEAL] = text_sum(canonical(config))
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of config.json, after comparing its seal and the sums of the files that are there. BenchError if one
    differs."""
    path = folder / CONFIG
    again = "export the ticket again, or fetch its folder again"
    try:
        config = parsed(path.read_bytes())
        section = config[SECTION]
        seal, files, now = section.pop(SEAL), section["files"], text_sum(canonical(config))
    except FileNotFoundError:
        raise BenchError(f"no exported ticket in {folder}: it has no {CONFIG}; `bench export` writes such folders") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BenchError(f"{path} is not of an exported ticket: `bench export` writes such folders") from None
    if section.get("layout") != LAYOUT:
        raise BenchError(f"{path} has layout {section.get('layout')!r:.20}, this is {LAYOUT}: use the Ticket Bench that wrote it")
    if seal != now:
        raise BenchError(f"{path} was changed after it was written: {again}")
    for name in NEEDED:
        if name not in files or not (folder / name).is_file():
            raise BenchError(f"{folder} has no {name}: {again}")
    for name, known in files.items():
        if (folder / name).is_file() and Path(name).name == name and file_sum(folder / name) != known:
            raise BenchError(f"{folder / name} is not the file that {CONFIG} was written with: {again}")
    return dict(config)
