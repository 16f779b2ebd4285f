"""Transfer: masks that were found on one task or data set are trained on another (Chen et al. 2020)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pruning import metadata as declare
from pruning.errors import PruningError
from pruning.lab import Lab
from pruning.masks import Masks
from pruning.ticket import Densities, SearchCost, Ticket

FILES = (".safetensors", ".json")
Transferred = tuple[Densities, Masks, dict[str, Any], SearchCost | None]
"""Densities, masks, notes for the record, and the cost of the search."""


def _named(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options as records hold them: a file is named by its content, because its path is of one machine."""
    if not _is_file(options["source"]):
        return options
    return {**options, "source": f"masks:{_load(options['source']).digest()[:16]}"}


@declare.method(sequential=True, recorded=_named, transfers=True)  # the search may be sequential
def transfer(
    lab: Lab,
    densities: list[Densities],
    source: str = "",
    method: str = "imp",
    options: Mapping[str, Any] | None = None,
    through: Sequence[float] | None = None,
) -> Iterator[Ticket]:
    """Put masks found on another task or data set on the initial weights of this task, pre-trained where it has such, and train
    them by its whole schedule (Chen et al. 2020).

    source   data of this task (rte), task and data (bert_mlm:text), or a file: a record, or the masks beside one
    method   the method that searches there, with the same seed; its trainings are part of the search cost
    options  options of that method
    through  densities that the search passes before those of this run; no ticket of theirs is trained

    A file holds one mask, so only its own density can be asked for; the cost of its search is unknown and not counted.
    Raises PruningError, naming tensors and shapes, if the masks belong to another network.
    """
    if not source:
        raise PruningError("transfer needs a source: give source=DATA, =TASK:DATA or =FILE with masks")
    start = lab.start("init")
    for density, masks, notes, search in (
        _read(lab, densities, source)
        if _is_file(source)
        else _searched(lab, densities, source, method, options or {}, through or ())
    ):
        try:
            lab.ones().check_like(masks)
        except PruningError as error:
            raise PruningError(f"the masks of source {source} do not fit: {error}") from None
        yield Ticket(density, lab.ones().replace(masks), start, notes=notes, search=search)


def _searched(
    lab: Lab, densities: list[Densities], source: str, method: str, options: Mapping[str, Any], through: Sequence[float]
) -> Iterator[Transferred]:
    if through and min(through) <= max(max(density.values()) for density in densities):
        raise PruningError(f"through={list(through)} are densities on the way: give densities above all others")
    task, _, data = source.rpartition(":")
    other = lab.sibling(task or None, data)
    before = [dict.fromkeys(densities[0], density) for density in through]
    for ticket in other.tickets(method, [*before, *densities], **options):
        if ticket.densities in densities:
            with lab.search() as search:
                lab.charge(ticket.search or other.spent(), other.step_macs() / lab.step_macs())
            yield ticket.densities, ticket.masks, {}, search


def _read(lab: Lab, densities: list[Densities], source: str) -> Iterator[Transferred]:
    masks = _load(source)
    for density in densities:
        for budget, target in density.items():
            if abs(masks.kept(budget) - target * masks.total(budget)) > 1:
                raise PruningError(
                    f"{source} keeps {masks.density(budget):.6g} of {budget}, so it has no ticket of density {target:g}"
                )
        yield density, masks, {"search": "not counted: masks from a file"}, None


def _is_file(source: str) -> bool:
    return source.endswith(FILES)


def _load(source: str) -> Masks:
    """Return the masks of a file; those of a record lie next to it and must be its own."""
    if not source.endswith(".json"):
        return Masks.load(source)
    try:
        digest = json.loads(Path(source).read_text(encoding="utf-8"))["ticket"]["masks"]
    except FileNotFoundError:
        raise PruningError(f"no record at {source} to take masks from") from None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise PruningError(f"{source} is no record of a ticket: name one of the .json files that `bench run` leaves") from None
    return Masks.load(f"{source.removesuffix('.json')}.masks.safetensors", digest)
