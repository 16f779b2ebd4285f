"""The catalogue: methods, scores and analyses by name, as "module:function". Listing them imports neither them nor torch."""


def _in(module: str, names: str) -> dict[str, str]:
    """Return name -> where to find the function of that name, for every one of ``names`` in a module."""
    return {name: f"{module}:{name}" for name in names.split()}


METHODS = {
    **_in("pruning.methods.magnitude", "dense one_shot imp imp_continued imp_by_kind"),
    **_in("pruning.methods.retraining", "prune_finetune lottery"),
    **_in("pruning.methods.admm", "admm"),
    **_in("pruning.methods.slimming", "slimming"),
    **_in("pruning.methods.early_bird", "early_bird early_bert"),
    **_in("pruning.methods.graph", "sgcn geb gebt ugs"),
    **_in("pruning.methods.learned", "edge_popup gem_miner"),
    **_in("pruning.methods.movement", "movement soft_movement"),
    **_in("pruning.methods.transfer", "transfer"),
    **_in("pruning.methods.dynamic", "rigl gmp"),
    **_in("pruning.methods.at_init", "synflow snip iter_snip force grasp magnitude_at_init random_ticket prune_later"),
    "set": "pruning.methods.dynamic:set_",
}
SCORES = {
    **_in("pruning.scores", "magnitude random synflow snip grasp grasp_magnitude l1_filter fpgm"),
    **_in("pruning.methods.graph", "degree jaccard"),
}
ANALYSES = {
    **_in("pruning.analyses.conservation", "conservation"),
    **_in("pruning.analyses.collapse", "collapse layer_densities prune_size"),
    **_in("pruning.analyses.correlation", "correlation"),
    **_in("pruning.analyses.travel", "travel"),
    **_in("pruning.analyses.learning", "learning"),
    **_in("pruning.analyses.connectivity", "barrier"),
    **_in("pruning.analyses.distances", "mask_distance overlap"),
    **_in("pruning.analyses.examples", "baselines oracle_epoch"),
}
