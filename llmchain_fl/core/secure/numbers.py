"""What a site sends as words of a sum, and what the opened sum means: one grid, known to sites and server.

================================  ===========================  ================================================
work                              a site's numbers             the sum stands for
================================  ===========================  ================================================
noise is shared, a gradient       integers, C is 2^k units     sum_k g_k + noise, in units of C / 2^k
noise is shared, unit ``site``    integers, C is 2^k units     sum_k u_k + noise, in units of C / 2^k
otherwise                         real numbers up to L         sum_k u_k, each rounded to L / ((2^31 - 1) / n)
================================  ===========================  ================================================
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import WireError
from llmchain_fl.core.privacy.integers import from_words, to_words, word_bits
from llmchain_fl.core.privacy.sharing import Sharing
from llmchain_fl.core.secure.words import Numbers, Words, wrapped
from llmchain_fl.core.work import WorkSpec

log = logging.getLogger("llmchain_fl.client")
Vectors = Mapping[str, NDArray[np.floating]]


def sum_name(run: str, work: WorkSpec) -> str:
    """What the sums of a run are called under this very work: a run that is extended begins new ones."""
    return f"{run}/{work.digest()[:16]}"


def word_width(work: WorkSpec) -> int:
    """Bits of a word of the sum.

    Raises:
        PrivacyError: no word is wide enough.
        WireError: the work has no secure sum.
    """
    if work.secure is None:
        raise WireError("the work has no secure sum", remedy="server and site must run the same version")
    if work.plan is None or not work.plan.is_shared:
        return 32
    sharing = Sharing.of(work.plan)
    return word_bits(work.secure.members, sharing.box, sharing.variance)


def words_of(work: WorkSpec, integers: Numbers | None, update: Vectors) -> Words:
    """A site's words: ``integers`` where noise is shared, else ``update`` as one vector in the order of its names."""
    if work.secure is None:
        raise WireError("the work has no secure sum", remedy="server and site must run the same version")
    if integers is not None:
        return wrapped(integers, word_width(work))
    flat = np.concatenate([np.asarray(update[name], dtype=np.float64).ravel() for name in sorted(update)])
    over = int((np.abs(flat) > work.secure.largest).sum())
    if over:
        log.warning("%d numbers of the update were cut off at secure.largest = %g", over, work.secure.largest)
    return to_words(flat, work.secure.largest, work.secure.members)


def mean_of(
    total: Numbers, work: WorkSpec, sites: int, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[np.float32]]:
    """The mean direction of ``sites`` from the opened sum, as arrays.

    shared, a gradient:   sum C / 2^k / (n b)        (the site has turned the sign: a direction, not a gradient)
    shared, unit site:    sum C / 2^k / n
    otherwise:            sum / n
    """
    plan, secure = work.plan, work.secure
    if secure is None:
        raise WireError("the work has no secure sum", remedy="server and site must run the same version")
    flat: NDArray[np.floating]
    if plan is None or not plan.is_shared:
        flat = from_words(total.astype(np.uint32), secure.largest, secure.members) / sites
    else:
        flat = total * (plan.clip_norm / 2.0**plan.grid) / (sites * (1.0 if plan.unit == "site" else plan.divisor))
    arrays, start = {}, 0
    for name in sorted(shapes):
        size = int(np.prod(shapes[name]))
        arrays[name] = flat[start : start + size].reshape(shapes[name]).astype(np.float32)
        start += size
    return arrays
