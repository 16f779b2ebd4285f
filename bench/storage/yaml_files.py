"""YAML files that people write by hand, such as claims and suites."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from bench.errors import BenchError, UsageError, first_problem

Model = TypeVar("Model", bound=BaseModel)
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Of libyaml, where PyYAML has it: it is ten times as fast."""


def read_yaml(kind: type[Model], path: Path, guide: str) -> Model:
    """Read a file as ``kind``; ``guide`` ends the message about a field that is wrong, and says where the format is explained.
    UsageError of one line that names the file for any flaw."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
    except Exception as error:  # a folder; not UTF-8; nested too deeply; a date that does not exist; ...
        raise UsageError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    try:
        return kind.model_validate(content)
    except BenchError as error:
        raise UsageError(f"{path}: {error}") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {first_problem(error, 'the file')}; {guide}") from None
