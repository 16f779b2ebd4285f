"""The one rule for identity: an option that was added later leaves hashes and labels alone while it has its default. Options that
existed when the first records were made are always written out. Whoever adds one afterwards declares its default as ``later``, so
that stored trainings and published records keep their keys."""

import dataclasses
from collections.abc import Mapping
from typing import Any

_LATER = "later"


def without_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` without every key of ``defaults`` whose value equals its default there."""
    return {key: value for key, value in values.items() if key not in defaults or value != defaults[key]}


def later(default: Any) -> Any:
    """Declare a dataclass field that was added after the first records: it is left out of the identity at its default."""
    return dataclasses.field(default=default, metadata={_LATER: True})


def identity_of(instance: Any) -> dict[str, Any]:
    """Return the fields of a dataclass instance by name, without later ones that have their default. Fields declared with
    ``init=False`` are working state and no part of the identity."""
    fields = [field for field in dataclasses.fields(instance) if field.init]
    values = {field.name: getattr(instance, field.name) for field in fields}
    return without_defaults(values, {field.name: field.default for field in fields if _LATER in field.metadata})
