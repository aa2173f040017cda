"""What an honest but curious server can make of one round of secure sums: every vector that it can compute.

It has all messages of the sites. From the shares it combines the self seeds of those who uploaded, as it must to open
the sum, and so takes each site's own mask away; what is left are the masks of pairs, whose keys no answer holds.

======================  ====================================================  ============================
view                    vector                                                still masked
======================  ====================================================  ============================
``as it came``          a site's words                                        by its seed and by all pairs
``own mask off``        the same without the mask of the site's own seed      by all pairs
``all but one``         the sum of these over all sites but one               by the pairs with that one
``the sum``             over all sites                                        no: it is what was agreed
======================  ====================================================  ============================

A server that does not follow the protocol is another matter: ``core/secure/checks.py`` and its tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.secure.identity import read
from llmchain_fl.core.secure.numbers import sum_name, word_width
from llmchain_fl.core.secure.shamir import SHARE, combined
from llmchain_fl.core.secure.stream import add_stream
from llmchain_fl.core.secure.words import Words, low_bits, signed, unpacked
from llmchain_fl.core.work import WorkSpec
from llmchain_fl.secure_sum import Kind, NotOpened, SecureRound


class Heard(NamedTuple):
    """One message of a site, as the server keeps it."""

    kind: Kind
    round: int
    site: str
    data: bytes


@dataclass(frozen=True)
class View:
    """One vector, in the numbers that a site's update has, and whose updates are in it."""

    name: str
    sites: tuple[str, ...]
    vector: NDArray[np.float64]
    blur: float = 0.0
    """Standard deviation of all else that is in each number, as the server knows it: masks, shared noise, rounding."""


def views(heard: Sequence[Heard], run: str, number: int, work: WorkSpec, size: int) -> list[View]:
    """Everything of round ``number``; the table above.

    Args:
        heard: all messages of the run; those of other rounds are left out.
        run, number: the round.
        work: with the secure sum.
        size: numbers in an update.

    Raises:
        PrivacyError: the round's sum was not opened: there is less to see.
    """
    bits, uploads, answers = word_width(work), {}, {}
    played = SecureRound(sum_name(run, work), number, work.digest(), size, bits)
    for kind, _, site, data in _in_order(heard, number):
        played.hear(kind, site, data)
        if kind == "upload":
            uploads[site] = unpacked(data.partition(b"\n")[2], size, bits)
        if kind == "answer":
            answers[site] = data
    opened = played.opened()
    if isinstance(opened, NotOpened) or len(uploads) < len(played.shared()):
        raise PrivacyError("the round lacks an upload, or its sum was not opened", remedy="look at a whole round")
    bare = {site: _without_own_mask(played, answers, site, words) for site, words in uploads.items()}
    names = sorted(uploads)
    parts: list[tuple[str, tuple[str, ...], Words]] = [("as it came", (site,), uploads[site]) for site in names]
    parts += [("own mask off", (site,), bare[site]) for site in names]
    for left_out in names:
        others = tuple(site for site in names if site != left_out)
        total: Words = np.add.reduce([bare[site] for site in others], dtype=np.uint32)
        parts.append(("all but one", others, total))
    unit, bound = grid(work), 2.0**bits
    masks = unit * bound / math.sqrt(12)
    made = [View(name, sites, _numbers(words, bits, unit), masks) for name, sites, words in parts]
    whole = _numbers(opened.total.astype(np.uint32), bits, unit)
    return [*made, View("the sum", tuple(names), whole, _of_the_sum(work, unit, len(names)))]


def grid(work: WorkSpec) -> float:
    """What one unit of the words stands for (``core/secure/numbers.py``)."""
    plan, secure = work.plan, work.secure
    if secure is None:
        raise PrivacyError("the work has no secure sum", remedy="attack its updates as they are")
    if plan is not None and plan.is_shared:
        return plan.clip_norm / 2.0**plan.grid
    return secure.largest / ((2**31 - 1) // secure.members)


def _of_the_sum(work: WorkSpec, unit: float, sites: int) -> float:
    """Rounding of each site, and its share of the noise."""
    plan = work.plan
    share = plan.noise_std / math.sqrt(plan.shares) if plan is not None and plan.is_shared else 0.0
    return math.sqrt(sites) * math.hypot(unit / math.sqrt(12), share)


def _numbers(words: Words, bits: int, unit: float) -> NDArray[np.float64]:
    return np.asarray(signed(words & low_bits(bits), bits) * unit, dtype=np.float64)


def _in_order(heard: Sequence[Heard], number: int) -> Iterator[Heard]:
    """The messages of one round, step by step."""
    steps: tuple[Kind, ...] = ("key", "share", "upload", "survivors", "answer")
    for step in steps:
        yield from (one for one in heard if one.round == number and one.kind == step)


def _without_own_mask(played: SecureRound, answers: dict[str, bytes], site: str, words: Words) -> Words:
    """The words of ``site`` minus the stream of its self seed, which the answers' shares give away."""
    members, shared = played.members, set(played.shared())
    shares = {}
    for holder, data in answers.items():
        owners = sorted(set(members.holders(holder)) & shared)
        if site in owners:
            digits = read(data, "answer").text("shares")
            at = 2 * SHARE * owners.index(site)
            shares[members.point(holder)] = int(digits[at : at + 2 * SHARE], 16)
    bare = words.copy()
    add_stream(bare, combined(shares), -1)
    return bare
