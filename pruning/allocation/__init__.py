"""Allocation: the only code that decides which entries are kept. Exactly k of n, seeded ties, monotone, with floors.
``distributions`` shares the entries of a budget out among its tensors, ``selection`` finds the best entries of a ranking,
``cells`` those under a pattern, and ``remaining`` keeps the books over many rounds."""

from collections.abc import Mapping

from pruning.allocation.distributions import DISTRIBUTIONS, Ranking
from pruning.allocation.remaining import RemainingEntries
from pruning.allocation.selection import Score
from pruning.maskable import Maskable
from pruning.masks import Masks
from pruning.patterns import check_densities
from pruning.ticket import Densities, Scheme

__all__ = ["DISTRIBUTIONS", "Ranking", "RemainingEntries", "allocate"]


def allocate(
    scores: Mapping[str, Score],
    masks: Masks,
    densities: Densities,
    maskables: list[Maskable],
    scheme: Scheme = "global",
    seed: int = 0,
    floors: bool = True,
    final: bool = True,
) -> Masks:
    """Keep, in every budget of ``densities``, the round(density * n) entries of highest score.

    scores     name -> tensor of the maskable's shape; higher means keep; entries that are masked already are ignored
    densities  budget -> density of the whole budget, masked entries included; other budgets stay as they are
    scheme     the layerwise distribution, one of ``DISTRIBUTIONS``, or budget -> distribution
    seed       orders equal scores
    floors     False: a tensor may lose all its entries, unless the budget has groups, which are units that can be removed;
               the budget must still keep enough entries for every floor
    final      False: other densities will follow, so n:m takes one above n/m too, which every m neighbours keep rounded up

    The entries of a group are kept or pruned together by their summed score; the best groups are kept for as long as they fit.
    Patterns of maskables are kept as ``pruning.patterns`` says: n:m gives every tensor its density, whatever the scheme; with
    rows the scheme says how many entries a tensor gets, less what makes no whole column, one entry of every row.
    Raises PruningError for a density outside (0, 1], above what remains, below the floors or not of the pattern, and for a
    non-finite score.
    """
    if final:
        check_densities(densities, maskables)
    remaining = RemainingEntries(maskables, masks)
    remaining.cut(scores, densities, scheme, seed, floors)
    return masks.replace({m.name: remaining.mask(m) for m in maskables if m.budget in densities})
