"""What a reply must satisfy before it is summed. Numpy only; nothing here knows Flower or torch.

A site is asked to train some arrays and answers with their *delta*. The answer is checked in the order of
``REASONS``, cheapest first, and refused whole: a reply is never repaired, clipped or summed in part. The message
never quotes what the site sent except where it is a number of ours (a shape, a norm, a round), because the name of
an unknown array is text that the site chose.

One sum is not proof against an honest-looking liar: a poisoned update below ``max_norm`` is admitted. That is the
business of a robust rule; admission only keeps out what would break the sum itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import AdmissionError, ConfigError

REASONS: dict[str, str] = {
    "wrong-round": "the reply answers another round than the one that is open",
    "duplicate": "the site has already answered in this round",
    "missing-name": "an array that was asked for is not there",
    "extra-name": "an array that nobody asked for is there",
    "wrong-dtype": "not a plain numpy array of the agreed dtype",
    "wrong-shape": "another shape than asked, also where numpy would broadcast it",
    "undecodable": "a compressed array that no site of the same version writes",
    "not-finite": "NaN or infinity",
    "norm": "the update is longer than this run allows",
    "product": "with the update, numbers of the adapter or products of them do not fit float32",
    "sum": "the round's sum was not fit to be used, and this update was the longest in it",
    "weight": "the weight of a site is not a finite number above 0",
    "scale": "alpha/r of a site is not a finite number above 0",
    "foreign-factor": "a factor that this rule keeps frozen differs from the global one",
}
"""Every code a refusal can carry (metric ``refused``, extra key ``reason``) and what it means."""

NORM_SLACK = 1e-5
"""Relative slack on ``max_norm``: a site clips in float32, and C computed twice differs by some 1e-7."""

_WAIT = "nothing to do: the reply was left out; a site answers each round once, in time"
_SAME_APP = "run the same version and the same rule on the site as on the server"
_DTYPES = (np.dtype(np.float32), np.dtype(np.float16))


def refuse(reason: str, message: str, *, remedy: str) -> AdmissionError:
    """An :class:`AdmissionError` whose ``what`` starts with its reason code (``"norm: the update ..."``)."""
    return AdmissionError(f"{reason}: {message}", remedy=remedy)


def reason_of(error: AdmissionError) -> str:
    """The reason code of a refusal, one of ``REASONS``; ``"other"`` for an error not made by :func:`refuse`."""
    code = error.what.partition(":")[0]
    return code if code in REASONS else "other"


@dataclass(frozen=True)
class Schema:
    """What a site was asked to train.

    Args:
        shapes: name -> shape of every array that must come back, no more and no fewer.
        dtype: the dtype on the wire, float32 or float16; no other dtype is admitted, in either direction.
        max_norm: longest admitted update (global L2 norm over all arrays), or None for no bound.

    Raises:
        ConfigError: no array is asked for, another dtype, or a bound that is not finite and above 0.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtype: np.dtype[np.floating] = _DTYPES[0]
    max_norm: float | None = None

    def __post_init__(self) -> None:
        faults = []
        if not self.shapes:
            faults.append("the sites are asked to train no array at all")
        if self.dtype not in _DTYPES:
            faults.append(f"arrays cannot travel as {self.dtype}; float32 and float16 can")
        if self.max_norm is not None and not (math.isfinite(self.max_norm) and self.max_norm > 0):
            faults.append(f"max_norm is {self.max_norm}; it must be finite and above 0, or None for no bound")
        if faults:
            raise ConfigError(faults)

    @classmethod
    def like(
        cls,
        sent: Mapping[str, NDArray[np.floating]],
        *,
        dtype: np.dtype[np.floating] = _DTYPES[0],
        max_norm: float | None = None,
    ) -> Schema:
        """The schema of the arrays that were sent out to be trained (their own dtype does not matter)."""
        return cls({name: array.shape for name, array in sent.items()}, np.dtype(dtype), max_norm)


def update_norm(arrays: Mapping[str, NDArray[np.floating]]) -> float:
    """Global L2 norm ``sqrt(sum over all arrays of x**2)``, squared and summed in float64.

    | arrays | norm |
    |---|---|
    | none | 0.0 |
    | float32 values up to 3e38 | finite: the squares fit float64 |
    """
    squares = (float(np.vdot(flat, flat)) for flat in (a.astype(np.float64).ravel() for a in arrays.values()))
    return math.sqrt(math.fsum(squares))


def admit(
    arrays: Mapping[str, object],
    schema: Schema,
    *,
    site: str,
    reply_round: int,
    open_round: int,
    answered: Collection[str],
) -> dict[str, NDArray[np.float32]]:
    """The site's update as float32 arrays that nobody else holds, or a refusal.

    Args:
        arrays: the delta as it came off the wire; any object may stand behind a name.
        schema: what was asked for.
        site: who answers.
        reply_round: the round the reply says it belongs to.
        open_round: the round being summed.
        answered: sites already admitted in this round.

    Returns:
        Fresh C-contiguous float32 copies in the schema's order: what the site does to its arrays later is its own
        business, and a stride trick does not reach the rule.

    Raises:
        AdmissionError: with the first reason that applies, see ``REASONS`` and :func:`reason_of`.

    | reply | outcome |
    |---|---|
    | all zeros | admitted: a site may have learnt nothing |
    | shape (1,) or () where (8, 4) was asked | wrong-shape |
    | float64, big-endian float32, integers, objects, lists | wrong-dtype |
    | a masked array or another subclass of ndarray | wrong-dtype: a mask would hide NaN from the check |
    | norm up to ``max_norm * (1 + NORM_SLACK)`` | admitted |
    """
    if reply_round != open_round:
        raise refuse("wrong-round", f"{site} answers round {reply_round}; round {open_round} is open", remedy=_WAIT)
    if site in answered:
        raise refuse("duplicate", f"{site} has already answered round {open_round}", remedy=_WAIT)
    _check_names(arrays, schema, site)
    admitted = {name: _checked(arrays[name], name, schema, site) for name in schema.shapes}
    norm = update_norm(admitted)
    if schema.max_norm is not None and norm > schema.max_norm * (1 + NORM_SLACK):
        message = f"the update of {site} has norm {norm:.6g}; at most {schema.max_norm:.6g} is admitted"
        raise refuse("norm", message, remedy="let the site clip its update, or raise the bound for everybody")
    return admitted


def _check_names(arrays: Mapping[str, object], schema: Schema, site: str) -> None:
    missing = [name for name in schema.shapes if name not in arrays]
    if missing:
        message = f"{site} sent no {missing[0]!r} ({len(missing)} of {len(schema.shapes)} arrays are missing)"
        raise refuse("missing-name", message, remedy=_SAME_APP)
    extra = len(arrays) - len(schema.shapes)
    if extra:
        message = f"{site} sent {extra} more than the {len(schema.shapes)} arrays it was asked for"
        raise refuse("extra-name", message, remedy=_SAME_APP)


def _checked(array: object, name: str, schema: Schema, site: str) -> NDArray[np.float32]:
    if type(array) is not np.ndarray:
        message = f"{name!r} of {site} is a {type(array).__name__}, not a plain numpy array"
        raise refuse("wrong-dtype", message, remedy=_SAME_APP)
    if array.dtype != schema.dtype:
        message = f"{name!r} of {site} is not {schema.dtype} (its dtype is of kind {array.dtype.kind!r})"
        raise refuse("wrong-dtype", message, remedy=_SAME_APP)
    if array.shape != schema.shapes[name]:
        message = f"{name!r} of {site} has shape {array.shape}; {schema.shapes[name]} was asked for"
        raise refuse("wrong-shape", message, remedy=_SAME_APP)
    if not np.isfinite(array).all():
        message = f"{name!r} of {site} has NaN or infinity in it"
        raise refuse("not-finite", message, remedy="lower the site's learning rate, or look at its records")
    return np.array(array, dtype=np.float32, order="C", copy=True)
