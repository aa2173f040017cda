"""Which words stood in the records behind one un-noised update? Two attacks of an honest-but-curious server.

The server knows base model, adapter, privacy plan and optimiser, and sees the update. It is given no record.

* :func:`pursue`, for rules that train ``lora_A``. For y = W x + s B (A x) the gradient of A is
  dA = s sum_t (B^T g_t) x_t^T: its rows lie in the span of the inputs x_t. The first layer's q, k and v share one
  input, which in a Llama depends on the token alone (positions enter inside attention), so that every token of the
  vocabulary can be tried (DAGER, Petrov et al. 2024, arXiv 2405.15586, section 4). While the tokens are fewer than
  the rows this is a test of membership in a span; with more tokens than rows it is joint sparse recovery, which the
  rank-aware greedy pursuit of Davies & Eldar 2012 (arXiv 1004.4529, RA-ORMP) solves. Exact, needs no data, needs
  gradients (plain SGD) and B != 0, and ends where the distinct tokens reach the width of the layer.
* :class:`LearnedInverse`, for everything else (``lora_B`` alone, Adam, many records): a linear map from updates to
  bags of tokens, fitted on updates that the server computes itself from public text through the very same pipeline,
  clipping and noise included (Wu et al. 2023, arXiv 2210.10880). Where the noise drowns the update, the fit falls
  back to the frequencies of the public text: to guessing.

Numpy only. What a defence does to these two says nothing about attacks nobody has written yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import PrivacyError

Floats = NDArray[np.floating]
Mask = NDArray[np.bool_]

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Ridge penalties that :func:`learn_inverse` tries, in units of the mean squared length of a standardised update."""


def noise_floor(shape: tuple[int, int], largest: float, noise_std: float = 0.0) -> float:
    """Largest singular value that rounding to float32 and Gaussian noise give a matrix of this shape, about.

    std (sqrt(rows) + sqrt(columns)) for independent entries; rounding of a parameter of size ``largest`` errs by up
    to 2^-24 of it. ``noise_std``: of the noise on one entry of the update, 0 without privacy.
    """
    std = float(np.hypot(largest * 2.0**-24, noise_std))
    return float(2.0 * std * (np.sqrt(shape[0]) + np.sqrt(shape[1])))


def pursue(rows: Floats, dictionary: Floats, floor: float, known: Iterable[int] = ()) -> tuple[int, ...]:
    """The tokens whose vectors span the rows: greedy, one token at a time, until no more than noise is left.

    With P the projection away from the vectors found so far and U an orthonormal basis of those directions of
    ``rows P`` that stand above ``floor``, the next token is argmax_v ||U^T x_v|| / ||P x_v||. It is 1 for a vector
    inside the span, and with as many rows as tokens nothing else reaches 1.

    ======================================  ==========================================================
    case                                    result
    ======================================  ==========================================================
    rows are zero or below the floor        ``known`` only
    fewer tokens than rows                  exactly they (the span test)
    tokens < (rows + width) / 2, generic    they, as a rule (the limit of uniqueness of the paper)
    tokens found reach width - 1            ``known`` only: any vector would fit, so nothing was learnt
    no token is left to explain the rows    ``known`` only: they are no gradient of this layer, or noise
    two tokens with parallel vectors        one of them
    ======================================  ==========================================================

    Args:
        rows: gradient rows, [m, width].
        dictionary: the vector of each token of the vocabulary, [V, width].
        floor: singular values below it are noise; see :func:`noise_floor`.
        known: tokens that are there for certain (the beginning-of-text token).

    Returns:
        Token numbers in the order found, ``known`` first.
    """
    vectors = np.asarray(dictionary, dtype=np.float64)
    width, start = vectors.shape[1], tuple(dict.fromkeys(known))
    tokens: list[int] = list(start)
    basis: Floats = np.zeros((width, 0))
    for token in start:
        basis = _extended(basis, vectors[token])
    while True:
        left = np.asarray(rows, dtype=np.float64)
        left = left - (left @ basis) @ basis.T
        _, sizes, directions = np.linalg.svd(left, full_matrices=False)
        signal = directions[sizes > floor]
        if not len(signal):
            return tuple(tokens)
        if basis.shape[1] >= width - 1:
            return start
        apart = vectors - (vectors @ basis) @ basis.T
        lengths = np.linalg.norm(apart, axis=1)
        fits = np.linalg.norm(apart @ signal.T, axis=1) / np.maximum(lengths, 1e-12)
        fits[lengths < 1e-6 * np.linalg.norm(vectors, axis=1)] = -1.0
        best = int(fits.argmax())
        if fits[best] < 0:
            return start
        tokens.append(best)
        basis = _extended(basis, vectors[best])


def _extended(basis: Floats, vector: Floats) -> Floats:
    """Gram-Schmidt, twice for precision; a vector inside the span adds nothing."""
    rest = vector - basis @ (basis.T @ vector)
    rest = rest - basis @ (basis.T @ rest)
    length = float(np.linalg.norm(rest))
    return basis if length <= 1e-9 * np.linalg.norm(vector) else np.column_stack([basis, rest / length])


@dataclass(frozen=True)
class LearnedInverse:
    """scores(u) = prior + ((u - mean) / scale) W: a token's expected number of occurrences, given the update.

    Attributes:
        mean: [P] mean of the public updates.
        scale: [P] their spread per entry; an entry that never moves has scale infinity.
        weights: [P, V].
        prior: [V] mean number of occurrences in the public records: what is guessed without an update.
        threshold: a token is guessed where its score is above; set by the asked false positive rate.
    """

    mean: Floats
    scale: Floats
    weights: Floats
    prior: Floats
    threshold: float

    def scores(self, updates: Floats) -> NDArray[np.float64]:
        """Expected numbers of occurrences. updates [n, P] -> [n, V]."""
        spread = (np.asarray(updates, dtype=np.float32) - self.mean) / self.scale
        return np.asarray(self.prior + spread @ self.weights, dtype=np.float64)

    def guess(self, updates: Floats) -> Mask:
        """The tokens said to be there, [n, V]."""
        return self.scores(updates) > self.threshold


def learn_inverse(
    updates: Floats,
    counts: Floats,
    noise_std: float = 0.0,
    false_positives: float = 0.01,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 1,
) -> LearnedInverse:
    """Ridge regression from updates to numbers of occurrences, on what the server made itself from public text.

    W = X^T (X X^T + (p + N v) I)^-1 (counts - prior): the dual form, for N examples of long updates. X are the updates
    over their spread, noise included; v is the share of the noise in that spread, so that N v is what the noise adds
    to X^T X on average (the best linear guess under noise); p > 0 is for what N examples cannot tell. The last fifth of
    the examples is kept apart and noised: it chooses p (least squared error) and the threshold (at most the asked share
    of absent tokens above it). It must share no record with the others.

    ==================================  ==============================================================
    case                                result
    ==================================  ==============================================================
    noise far above the updates         scores are nearly the prior
    an entry of the update is constant  it is not used
    fewer than ten examples             PrivacyError: nothing could be kept apart
    ==================================  ==============================================================

    Args:
        updates: [N, P], one for each example (a record, or a group of records), without Gaussian noise.
        counts: [N, V], how often each token stands in it.
        noise_std: of the noise on each entry of the update under attack; 0 where ``updates`` already are like it.
        false_positives: share of absent tokens that may be guessed.
        penalties: to choose p from, in units of the mean of the diagonal of X X^T.
        seed: of the noise on what is kept apart.

    Raises:
        PrivacyError: too few examples, or not as many updates as counts.
    """
    if len(updates) != len(counts) or len(updates) < 10:
        raise PrivacyError(
            f"{len(updates)} updates and {len(counts)} bags of tokens cannot be learnt from",
            remedy="give at least ten of each, in the same order",
        )
    rows = np.asarray(updates, dtype=np.float32)
    mean, spread = rows.mean(axis=0), np.hypot(rows.std(axis=0), np.float32(noise_std))
    scale = np.where(spread > 0, spread, np.float32(np.inf))
    rows = (rows - mean) / scale
    prior = np.asarray(counts, dtype=np.float64).mean(axis=0)
    target, cut = counts - prior, len(rows) - len(rows) // 5
    noise = np.random.default_rng(seed).standard_normal(rows[cut:].shape, dtype=np.float32) * (noise_std / scale)
    apart = ((rows[cut:] + noise) @ rows[:cut].T).astype(np.float64)
    gram = (rows @ rows.T).astype(np.float64)
    size, share = float(np.diag(gram).mean()) or 1.0, float(((noise_std / scale) ** 2).mean())
    trials = [apart @ _dual(gram[:cut, :cut], target[:cut], p * size + cut * share) for p in penalties]
    best = int(np.argmin([float(((trial - target[cut:]) ** 2).mean()) for trial in trials]))
    weights = rows.T @ _dual(gram, target, penalties[best] * size + len(rows) * share).astype(np.float32)
    absent = np.asarray(counts)[cut:] == 0
    threshold = float(np.quantile((trials[best] + prior)[absent], 1.0 - false_positives))
    return LearnedInverse(mean, scale, weights, prior, threshold)


def _dual(gram: NDArray[np.float64], target: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    return np.asarray(np.linalg.solve(gram + penalty * np.eye(len(gram)), target), dtype=np.float64)


@dataclass(frozen=True)
class Recovery:
    """How much of one bag of tokens a guess holds.

    Attributes:
        recall: share of the distinct tokens that were guessed.
        rare: the same over tokens that are not common in public text; NaN where the record has none of them.
        false_positives: share of the absent tokens that were guessed.
        guesses: how many tokens were guessed.
    """

    recall: float
    rare: float
    false_positives: float
    guesses: int


def recovery(guessed: Mask, counts: NDArray[np.integer], common: Mask) -> Recovery:
    """Compare a guess [V] with the truth [V]; ``common`` [V] marks the tokens that anybody would guess."""
    there = np.asarray(counts) > 0
    rare = there & ~common
    return Recovery(
        recall=_share(guessed, there),
        rare=_share(guessed, rare),
        false_positives=_share(guessed, ~there),
        guesses=int(guessed.sum()),
    )


def _share(guessed: Mask, of: Mask) -> float:
    return float(guessed[of].mean()) if of.any() else float("nan")


def most_frequent(prior: Floats, guesses: int) -> Mask:
    """Chance: the same number of guesses, spent on the commonest tokens of public text. prior [V] -> mask [V]."""
    mask = np.zeros(len(prior), dtype=np.bool_)
    mask[np.argsort(-np.asarray(prior), kind="stable")[:guesses]] = True
    return mask
