"""The kinds of values that keys of the command line take, and the words for them."""

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal, get_args, get_origin

from omegaconf import MISSING
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from bench import registry
from bench.errors import UsageError

KINDS: dict[str, Any] = {
    "seeds": list[int],
    "controls": list[str],
    "pattern": str | None,
    "device": str,
    "jobs": int | Literal["auto"],
    "threads": int | Literal["auto"],
    "store": str,
    "runs": str,
    "checkpoint_seconds": int | float,
    "tracker": str | None,
    "executor.name": str,
    "task.name": str,
    "task.version": int,
    "task.adapter": str,
    "data.name": str,
    "data.root": str | None,
    "data.val": int | float | str,
    "data.train_limit": int | None,
    "model.name": str,
    "model.root": str | None,
    "method.name": str,
    "train.epochs": int,
    "train.batch_size": int | None,
    "train.clip_norm": int | float | None,
    "train.lr": int | float,
    "train.milestones": list[int | float],
    "train.neighbours": list[int] | None,
    "train.validate_every": int,
}
"""The kinds of keys whose default does not show it."""
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    int | float: "a number",
    str: "text",
    list: "a list",
    Mapping: "a mapping",
    type(None): "null",
    Any: "anything",
}


def text(value: Any) -> str:
    """Return a plain value as Hydra reads it."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}: {text(v)}' for key, v in value.items())}}}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key of a tree, dotted, with its value."""
    for key, value in node.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")


def check_kind(key: str, value: Any, default: Any, hints: Mapping[str, Any]) -> None:
    """Refuse a value whose kind is not its key's. The kind is that of ``KINDS``, else of the annotation of a function's option
    where its default matches the annotation, else of the default. Null is accepted only where the default is null or the kind
    includes it."""
    kind = KINDS.get(key, hints.get(key, Any))
    if key not in KINDS and default != MISSING and not (_is_of(kind, default) and kind is not Any):
        own = key.startswith(("method.", "analysis."))
        kind = Any if default is None else _kind(default, own)
    such = "" if default in (None, MISSING) or default == [] else f", such as {text(default)}"
    if not _is_of(kind, value):
        raise UsageError(f"{key}={text(value)}: {key} must be {_noun(kind)}{such}")
    try:
        registry.plain(value, "it is")
    except UsageError:
        raise UsageError(f"{key}={text(value)}: {key} must be a finite number{such}") from None
    if any(isinstance(v, int) and abs(v) >= 2**63 for v in _leaves(value)):
        raise UsageError(f"{key}={text(value):.40}: {key} must be below 2 to the power of 63")


@cache
def _adapter(kind: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(kind)
    except PydanticUserError:  # a class of the function's own
        return None


def _is_of(kind: Any, value: Any) -> bool:
    if (adapter := _adapter(kind)) is None:
        return False
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _kind(default: Any, own: bool) -> Any:
    """Return the kind of a default. ``own``: it belongs to a function's option, where a whole number asks for a whole number."""
    if isinstance(default, (list, tuple)):
        kinds = {_kind(value, own) for value in default}
        return list.__class_getitem__(functools.reduce(operator.or_, kinds)) if kinds else list
    if isinstance(default, Mapping):
        return Mapping
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        return int if own and isinstance(default, int) else int | float
    return type(default)


def _noun(kind: Any) -> str:
    """Return a kind in words."""
    if kind in WORDS:
        return WORDS[kind]
    inner = [_noun(k) for k in get_args(kind)]
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    if get_origin(kind) in (list, Sequence, tuple, set):
        return f"a list of {' or '.join(inner).replace('a whole number', 'whole numbers').replace('a number', 'numbers')}"
    if get_origin(kind) is Mapping:
        return f"a mapping to {inner[-1]}"
    return " or ".join(dict.fromkeys(inner)) or str(kind)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple, Mapping)):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(one)
    else:
        yield value
