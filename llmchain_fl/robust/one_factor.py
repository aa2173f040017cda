"""A module of which one factor moves (ffa, fedsvd, rolora, fedsb): the change is linear in it. Numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.aggregation.rule import CORE, LORA_A, LORA_B, Arrays, SiteFactors
from llmchain_fl.robust.align import EDGE
from llmchain_fl.robust.moving import Floats, Pair, Path, Rows, within


@dataclass(frozen=True)
class _Frozen:
    """A frozen factor F as a tall matrix (d x r): B, or A transposed. ``F = U S V^T``, visible: S above EDGE max S."""

    matrix: Floats
    root: Floats
    """S V^T, visible rows only: ``||F x|| = ||root x||`` up to what is hidden."""
    inverse: Floats
    """V S^-1 U^T, r x d: the pseudoinverse over the visible directions."""
    visible: Floats | None
    """V V^T over the visible directions; None where all are."""

    @classmethod
    def of(cls, factor: NDArray[np.floating]) -> _Frozen | None:
        """None for a factor that is 0."""
        matrix = factor.astype(np.float64)
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        if not s[0] > 0:
            return None
        seen = int(np.sum(s > EDGE * s[0]))
        u, s, vt = u[:, :seen], s[:seen], vt[:seen]
        hidden = seen < matrix.shape[1]
        return cls(matrix, s[:, None] * vt, (vt.T / s) @ u.T, vt.T @ vt if hidden else None)


class OneFactor:
    """``D = s L X R^T``; X is how far the moving factor went, L and R the frozen ones (or nothing on that side).

    | moves | X | L | R | D holds |
    |---|---|---|---|---|
    | lora_B | (s_k / s) B_k - B | | A^T | whatever has the rows of A |
    | lora_A | A_k - A | B | | whatever has the columns of B |
    | lora_R (core) | (s_k / s) R_k - R | B | A^T | both |

    A robust D is brought back by least squares: ``X = L^+ D R^+T / s``, the nearest that the factor can hold.

    Directions of a frozen factor below ``EDGE`` of its largest singular value are hidden: X there is not passed on. A
    site could put anything into them unseen, and it would come out in a later round, when the frozen factor moves
    (rolora). What stays possible: X up to 1 / EDGE times as long as its D would suggest.

    | case | outcome |
    |---|---|
    | the frozen factor is 0 (rolora before anything was learnt; fedsa, whose B stays at the sites) | taken as 1: what |
    | | is measured are the entries of the moving factor, times s |
    | a site brings a frozen factor of its own | not looked at here; the rule refuses it |
    | X = 0, also under another alpha | D is exactly 0 |
    """

    def __init__(self, arrays: Arrays, module: str, ending: str, scale: float) -> None:
        self._name = f"{module}.{ending}"
        self._start, self._scale, self._scaled = arrays[self._name], scale, ending != LORA_A
        self._left = None if ending == LORA_B else _Frozen.of(arrays[f"{module}.{LORA_B}"])
        self._right = None if ending == LORA_A else _Frozen.of(arrays[f"{module}.{LORA_A}"].T)
        self._wide = ending == LORA_A

    def settled(self, site: SiteFactors) -> dict[str, NDArray[np.float32]]:
        """Without what went into hidden directions, and within ``LARGEST``, so that the rule takes it at any scale."""
        left, right = (None if f is None else f.visible for f in (self._left, self._right))
        step = self._step(site)
        if left is None and right is None and within(step) is step:
            return {}
        step = step if left is None else left @ step
        return self._moved(site, within(step if right is None else step @ right))

    def gram(self, sites: Sequence[SiteFactors]) -> Floats:
        """<D_k, D_l> from the r columns of each: K^2 r d."""
        rows = np.stack([self._seen(site).ravel() for site in sites])
        return rows @ rows.T

    def path(self, site: SiteFactors) -> Path:
        """Linear, so ``a`` alone."""
        seen = self._seen(site)
        return Path(float(np.vdot(seen, seen)))

    def shrunk(self, site: SiteFactors, t: float) -> dict[str, NDArray[np.float32]]:
        """The start and t of the way: exactly t D."""
        return self._moved(site, t * self._step(site))

    def pair(self, site: SiteFactors) -> Pair:
        """D as left @ right."""
        step = self._scale * self._step(site)
        if self._wide:
            return (np.eye(len(step)) if self._left is None else self._left.matrix), step
        left = step if self._left is None else self._left.matrix @ step
        return left, (np.eye(step.shape[1]) if self._right is None else self._right.matrix.T)

    def fit(self, rows: Iterable[Rows]) -> tuple[dict[str, NDArray[np.float32]], float, float]:
        """Least squares, row by row: nothing larger than a factor is kept."""
        step, total = np.zeros(self._start.shape), 0.0
        for where, block in rows:
            total += float(np.vdot(block, block))
            part = block if self._right is None else block @ self._right.inverse.T
            if self._left is None:
                step[where] = part
            else:
                step += self._left.inverse[:, where] @ part
        held = self._framed(step)
        moved = self._start.astype(np.float64) + step / self._scale
        lost = max(0.0, total - float(np.vdot(held, held)))
        return {self._name: moved.astype(np.float32)}, total, lost

    def _step(self, site: SiteFactors) -> Floats:
        """X, from what the site was handed (``B s / s_k`` in float32), so that no move is exactly 0."""
        ratio = site.scale / self._scale if self._scaled else 1.0
        return (site.arrays[self._name].astype(np.float64) - self._handed(ratio)) * ratio

    def _moved(self, site: SiteFactors, step: Floats) -> dict[str, NDArray[np.float32]]:
        ratio = site.scale / self._scale if self._scaled else 1.0
        return {self._name: (self._handed(ratio) + step / ratio).astype(np.float32)}

    def _handed(self, ratio: float) -> Floats:
        start = self._start.astype(np.float64)
        return start if ratio == 1.0 else (start / ratio).astype(np.float32).astype(np.float64)

    def _seen(self, site: SiteFactors) -> Floats:
        return self._framed(self._scale * self._step(site))

    def _framed(self, step: Floats) -> Floats:
        """As long as ``L step R^T``, and in the same angles, but small."""
        step = step if self._left is None else self._left.root @ step
        return step if self._right is None else step @ self._right.root.T


def moving_ending(arrays: Arrays, module: str, up: Sequence[str]) -> str | None:
    """The one factor of this module among ``up``; None when there are several, or none."""
    endings = [ending for ending in (LORA_A, LORA_B, CORE) if ending in up and f"{module}.{ending}" in arrays]
    return endings[0] if len(endings) == 1 else None
