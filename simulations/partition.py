"""One set of records -> the rows of each simulated site. One function per way, in one table.

All take the same arguments and keep the same promises (tested over the whole table):

* every row is at exactly one site; each site's indices rise;
* the same arguments give the same sites, and nothing but them is random;
* no site has fewer than ``max(1, min_per_site)`` rows, or it is a ``DataError``.

Arguments:
    labels: (n,) the label of each row.
    groups: (n,) the group of each row (hospital, branch, person), or None; never quoted in a message.
    sites: how many sites.
    seed: of the draw.
    alpha: concentration of the Dirichlet draws: towards 0 a site has few labels, for large alpha all mixes are alike.
    min_per_site: fewest rows a site may have.

Returns: one int64 array of row indices per site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from llmchain_fl.core.errors import ConfigError, DataError

Indices = npt.NDArray[np.int64]
Sites = list[Indices]
Labels = Sequence[str]
Groups = Sequence[str] | None
Partitioner = Callable[[Labels, Groups, int, int, float, int], Sites]

SHARDS_PER_SITE = 2
"""McMahan et al. 2017 give each of 100 clients 2 of 200 shards."""

ALPHA_RANGE = (1e-9, 1e9)
"""Far beyond any use, and where the draws are still exact."""


def partition(
    way: str,
    labels: Labels,
    groups: Groups = None,
    *,
    sites: int,
    seed: int,
    alpha: float = 1.0,
    min_per_site: int = 1,
) -> Sites:
    """Deal rows out to sites by the entry ``way`` of ``PARTITIONERS``; arguments and result as at the top.

    Raises:
        ConfigError: an unknown way, or a number out of its bounds.
        DataError: rows or groups that cannot fill the sites.
    """
    if way not in PARTITIONERS:
        raise ConfigError([f"partition is '{way}'; it must be one of {', '.join(PARTITIONERS)}"])
    return PARTITIONERS[way](labels, groups, sites, seed, alpha, min_per_site)


def iid(labels: Labels, groups: Groups, sites: int, seed: int, alpha: float, min_per_site: int) -> Sites:
    """A shuffled deal: site sizes differ by one row at most."""
    _check(len(labels), sites, alpha, min_per_site)
    return _finish(np.array_split(np.random.default_rng(seed).permutation(len(labels)), sites), min_per_site)


def dirichlet_equal(labels: Labels, groups: Groups, sites: int, seed: int, alpha: float, min_per_site: int) -> Sites:
    """Sites of equal size, each with its own mix of labels: q_site ~ Dir(alpha * p).

    Source: Hsu, Qi, Brown 2019, arXiv:1909.06335, section 3: p (L,) is the share of each of the L labels in all
    rows, q_site (L,) the mix of one site. A site draws its rows label by label from q_site without replacement;
    a label of which no row is left drops out of q_site.

    No site can be empty: sizes are those of ``iid``. Where we differ: all rows are used, so the last sites get
    what the earlier ones left and follow their q less closely.
    A q_site that is 0 (rounded) on every label that has rows left is drawn again on those labels: cut to some of
    the labels, a Dirichlet is the Dirichlet of those labels.
    """
    _check(len(labels), sites, alpha, min_per_site)
    rng = np.random.default_rng(seed)
    rows = _rows_by(labels, rng)
    left = np.array([len(rows_of_label) for rows_of_label in rows])
    prior = left / left.sum()
    parts = []
    for chunk in np.array_split(np.arange(len(labels)), sites):
        counts = _draw_counts(alpha * prior, left, len(chunk), rng)
        taken = [rows[label][left[label] - count : left[label]] for label, count in enumerate(counts)]
        parts.append(np.concatenate(taken))
        left = left - counts
    return _finish(parts, min_per_site)


def dirichlet(labels: Labels, groups: Groups, sites: int, seed: int, alpha: float, min_per_site: int) -> Sites:
    """Every label is cut up among the sites by its own shares ~ Dir(alpha, ..., alpha): sizes differ as well.

    Source: Yurochkin et al. 2019, arXiv:1905.12022, section 4; the cut most federated benchmarks call "Dirichlet".

    Where we differ: others draw again until every site has enough, which may never end for a small alpha. Here a
    site that is short of ``max(1, min_per_site)`` rows takes one row at a time from whichever site then has most.
    """
    _check(len(labels), sites, alpha, min_per_site)
    rng = np.random.default_rng(seed)
    dealt: list[list[Indices]] = [[] for _ in range(sites)]
    for rows in _rows_by(labels, rng):
        shares = rng.dirichlet(np.full(sites, alpha))
        cuts = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        for site, piece in enumerate(np.split(rows, cuts)):
            dealt[site].append(piece)
    parts = [rng.permutation(np.concatenate(pieces)) for pieces in dealt]
    return _finish(_level(parts, max(1, min_per_site)), min_per_site)


def shards(labels: Labels, groups: Groups, sites: int, seed: int, alpha: float, min_per_site: int) -> Sites:
    """Rows sorted by label, cut into ``2 * sites`` shards, two random ones per site.

    Source: McMahan et al. 2017, arXiv:1602.05629, section 3 ("pathological non-IID"). Where we differ: shards
    differ by one row where the rows do not divide evenly, and a short site is filled as in ``dirichlet``.
    """
    _check(len(labels), sites, alpha, min_per_site)
    rng = np.random.default_rng(seed)
    pieces = np.array_split(np.concatenate(_rows_by(labels, rng)), SHARDS_PER_SITE * sites)
    owners = rng.permutation(len(pieces)).reshape(sites, SHARDS_PER_SITE)
    parts = [rng.permutation(np.concatenate([pieces[piece] for piece in mine])) for mine in owners]
    return _finish(_level(parts, max(1, min_per_site)), min_per_site)


def column(labels: Labels, groups: Groups, sites: int, seed: int, alpha: float, min_per_site: int) -> Sites:
    """Whole groups to sites: the largest first, each to the site with the fewest rows (Graham 1969, LPT).

    With as many groups as sites, each site is one group. Sites stand in the order of their first group's name, so
    neither the seed nor the order of the rows changes anything.
    """
    by_group = _rows_by_group(labels, groups)
    _check(len(labels), sites, alpha, min_per_site)
    if len(by_group) < sites:
        raise DataError(
            f"the column has {len(by_group)} groups for {sites} sites",
            remedy=f"ask for at most {len(by_group)} sites, or use another column or partition",
        )
    held: list[list[str]] = [[] for _ in range(sites)]
    sizes = [0] * sites
    for name in sorted(by_group, key=lambda name: (-len(by_group[name]), name)):
        site = sizes.index(min(sizes))
        held[site].append(name)
        sizes[site] += len(by_group[name])
    ordered = sorted(held, key=min)
    return _finish([np.concatenate([by_group[name] for name in names]) for names in ordered], min_per_site)


def natural(labels: Labels, groups: Groups, sites: int, seed: int, alpha: float, min_per_site: int) -> Sites:
    """Every group is a site, in the order of their names; ``sites`` is their number, or 0 for as many as there are."""
    count = len(_rows_by_group(labels, groups))
    if sites not in (0, count):
        raise DataError(
            f"the column has {count} groups and the run asks for {sites} sites",
            remedy=f"ask for {count} or 0 (as many as there are), or use partition 'column'",
        )
    return column(labels, groups, count, seed, alpha, min_per_site)


PARTITIONERS: dict[str, Partitioner] = {
    "iid": iid,
    "dirichlet-equal": dirichlet_equal,
    "dirichlet": dirichlet,
    "shards": shards,
    "column": column,
    "natural": natural,
}


def _check(rows: int, sites: int, alpha: float, min_per_site: int) -> None:
    faults = [f"sites is {sites}; it must be at least 1"] if sites < 1 else []
    if not ALPHA_RANGE[0] <= alpha <= ALPHA_RANGE[1]:
        faults.append(f"alpha is {alpha}; it must be from {ALPHA_RANGE[0]:g} to {ALPHA_RANGE[1]:g}")
    if min_per_site < 0:
        faults.append(f"min_per_site is {min_per_site}; it must be at least 0")
    if faults:
        raise ConfigError(faults)
    if rows < sites * max(1, min_per_site):
        raise DataError(
            f"{rows} records cannot give {sites} sites {max(1, min_per_site)} each",
            remedy="use fewer sites, more records or a lower min_per_site",
        )


def _finish(parts: Sequence[npt.NDArray[np.integer]], min_per_site: int) -> Sites:
    """Sorted int64 indices, once every site has enough of them."""
    smallest = min(range(len(parts)), key=lambda site: len(parts[site]))
    if len(parts[smallest]) < max(1, min_per_site):
        raise DataError(
            f"site {smallest} of {len(parts)} (counted from 0) gets {len(parts[smallest])} records; the fewest allowed "
            f"is {max(1, min_per_site)}",
            remedy="use fewer sites, more records, a lower min_per_site or another partition",
        )
    return [np.sort(part).astype(np.int64) for part in parts]


def _level(parts: list[Indices], least: int) -> Sites:
    """Every site with ``least`` rows: a short one takes the last row of whichever then has most."""
    lists = [part.tolist() for part in parts]
    for rows in lists:
        while len(rows) < least:
            rows.append(max(lists, key=len).pop())
    return [np.array(rows, dtype=np.int64) for rows in lists]


def _rows_by(labels: Labels, rng: np.random.Generator) -> Sites:
    """Shuffled row indices of each label, labels in sorted order."""
    rows: dict[str, list[int]] = {label: [] for label in sorted(set(labels))}
    for index, label in enumerate(labels):
        rows[label].append(index)
    return [rng.permutation(np.array(indices, dtype=np.int64)) for indices in rows.values()]


def _rows_by_group(labels: Labels, groups: Groups) -> dict[str, Indices]:
    if groups is None:
        raise DataError("this partition needs a column of groups", remedy="name the column, for instance hospital")
    if not labels:
        raise DataError("there is no record to deal out", remedy="give a source with records")
    if len(groups) != len(labels):
        raise DataError(f"{len(groups)} groups for {len(labels)} records", remedy="give every record one group")
    blank = [index for index, group in enumerate(groups) if not group.strip()]
    if blank:
        raise DataError(
            f"{len(blank)} records have no group (first: record {blank[0] + 1})",
            remedy="fill the column in, or use another partition",
        )
    rows: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        rows.setdefault(group, []).append(index)
    return {group: np.array(indices, dtype=np.int64) for group, indices in rows.items()}


def _draw_counts(concentration: npt.NDArray[np.float64], left: Indices, need: int, rng: np.random.Generator) -> Indices:
    """How many rows of each label a site draws: (L,) counts <= left that sum to ``need``.

    The same law as drawing one row at a time from one mix ~ Dir(concentration) over the labels that still have rows.
    """
    mix, counts = rng.dirichlet(concentration), np.zeros_like(left)
    while (short := need - int(counts.sum())) > 0:
        open_mix = np.where(counts < left, mix, 0.0)
        if open_mix.sum() <= 0:
            open_mix[counts < left] = rng.dirichlet(concentration[counts < left])
        drawn = rng.multinomial(short, open_mix / open_mix.sum())
        counts = counts + np.minimum(drawn, left - counts)
    return counts
