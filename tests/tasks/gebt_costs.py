"""What GEBT (You et al. 2022) counts as cost, in multiply-adds ("FLOPs" there): decoded from its tables and figures, every
entry of which this gives back. For comparison with the paper only: it leaves out the second layer's aggregation, multiplies
GAT and GraphSAGE by flat factors, counts duplicated edges and dense features, and supposes that every pruned entry is free.
Records hold our own count, ``Task.macs``.

>>> round(inference("gcn", SIZES["cora"]) / 1e6, 2)
77.95
"""

from typing import NamedTuple

from bench.task import one_of


class Size(NamedTuple):
    """Counts of the paper's Table 1."""

    nodes: int
    edges: int
    features: int
    outputs: int


SIZES = {
    "cora": Size(2708, 5429, 1433, 7),
    "citeseer": Size(3312, 4732, 3703, 6),
    "pubmed": Size(19717, 44338, 500, 3),
    "arxiv": Size(169343, 1166243, 128, 40),
    "collab": Size(235868, 1285465, 128, 2),
}
HIDDEN, DEEP = 16, 128  # widths of the two-layer networks, and of ResGCN
RESGCN = {f"resgcn{layers}": layers for layers in (7, 14, 28)}
SHALLOW = {"gcn": (1, 1), "gin": (1, 1), "gat": (8, 8), "sage": (0, 100)}  # times aggregation, times combination
PIPELINES = ("random", "sgcn", "geb", "gebt")


def inference(model: str, size: Size, edges: float = 1.0, weights: float = 1.0) -> float:
    """Return the multiply-adds of one inference on the whole graph at these densities. ``edges`` of GraphSAGE count nothing."""
    if model in RESGCN:
        combination = (RESGCN[model] - 1) * size.nodes * DEEP * DEEP + size.nodes * DEEP * size.outputs
        return edges * RESGCN[model] * size.edges * DEEP + weights * combination
    times_aggregation, times_combination = SHALLOW[one_of("model", model, (*SHALLOW, *RESGCN))]
    combination = size.nodes * HIDDEN * (size.features + size.outputs)
    return edges * times_aggregation * 2 * size.edges * size.features + weights * times_combination * combination


def training(pipeline: str, dense: float, pruned: float, ticket_epoch: int = 100, epochs: int = 100) -> float:
    """Return the multiply-adds of a whole pipeline, search and retraining, from those of one ``dense`` and one ``pruned``
    inference.

    An epoch is three inferences; every phase takes ``epochs`` unless its ticket emerges at ``ticket_epoch``.
    """
    searching = {
        "random": 0,
        "sgcn": 2 * epochs,  # train, sparsify
        "geb": epochs + ticket_epoch,  # train, sparsify up to the ticket
        "gebt": 2 * ticket_epoch,
    }  # both together, a pass for each
    return 3 * (searching[one_of("pipeline", pipeline, PIPELINES)] * dense + epochs * pruned)
