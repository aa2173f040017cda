"""What a site asks of its ledger (:class:`Ledger`): to pay for a :class:`Release`, on certain :class:`Terms`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llmchain_fl.core.errors import PrivacyError
from llmchain_fl.core.privacy.accountants import ACCOUNTANTS
from llmchain_fl.core.privacy.events import Event
from llmchain_fl.core.privacy.plan import UNITS

PURPOSES = ("training", "scores")
ADJACENCY = "add-or-remove-one"
"""What the accountants count by; it stands in a ledger's opening line."""
LONGEST = 500
"""Most characters of a key or a name."""
Part = tuple[str, Sequence[str]]
"""A group that pays for a release, and the people who would take part under it."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Charge:
    """``event`` touches the people of ``group`` and nobody else (``groups.py``)."""

    group: str
    event: Event

    def __post_init__(self) -> None:
        check_texts({"group": self.group})


@dataclass(frozen=True)
class Release:
    """One thing that leaves the site, with everything it costs.

    Raises:
        PrivacyError: no key, no charge, an unknown purpose, or a name that is too long or not printable.
    """

    key: str
    """Names it for ever: "<run>/<round>", "<run>/<round>/scores"."""
    charges: tuple[Charge, ...]
    plan: str
    """Digest of the privacy plan."""
    purpose: str
    """One of PURPOSES."""
    federation: str
    """Who asked."""
    stage: str
    """Whose records."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "charges", tuple(self.charges))
        check_texts({"key": self.key})
        check_texts({name: getattr(self, name) for name in ("plan", "federation", "stage")}, shortest=0)
        if self.purpose not in PURPOSES or not self.charges:
            raise PrivacyError(
                f"release {self.key!r} with purpose {self.purpose!r} and {len(self.charges)} charges",
                remedy=f"purpose one of {PURPOSES}, at least one charge",
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "charges": [asdict(charge) for charge in self.charges]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Release:
        """Back from :meth:`to_dict`.

        Raises:
            PrivacyError, KeyError, TypeError: not what :meth:`to_dict` gave, or an unknown kind of event.
        """
        charges = tuple(Charge(**{**charge, "event": Event(**charge["event"])}) for charge in values["charges"])
        return cls(**{**values, "charges": charges})


@dataclass(frozen=True)
class Terms:
    """Whose budget it is and how it is counted.

    ``site`` and ``unit`` belong to the ledger for ever; the data holder may change the others between two calls.

    Raises:
        PrivacyError: no name, 0 < delta < 1, an unknown unit or accountant, or a limit below 0.
    """

    site: str
    """The data holder's name. A ledger belongs to a site with all its data sets, not to one, a run or a federation."""
    unit: str
    """One of plan.UNITS."""
    delta: float
    """At which epsilon is stated and limited."""
    accountant: str
    """One of accounting.ACCOUNTANTS."""
    epsilon_limit: float
    """Never passed; ``math.inf`` only records."""

    def __post_init__(self) -> None:
        check_texts({"site": self.site})
        holds = 0 < self.delta < 1 and self.epsilon_limit >= 0
        if not holds or self.unit not in UNITS or self.accountant not in ACCOUNTANTS:
            raise PrivacyError(
                f"no such ledger: delta={self.delta!r}, unit={self.unit!r}, accountant={self.accountant!r}, "
                f"limit={self.epsilon_limit!r}",
                remedy=f"0 < delta < 1, unit in {sorted(UNITS)}, accountant in {sorted(ACCOUNTANTS)}, limit >= 0",
            )


class Ledger(Protocol):
    """What a site asks before it trains and tells before it sends.

    * ``afford`` raises BudgetExhausted where ``reserve`` would; writes nothing
    * ``reserve`` books a release durably, free when it is reserved and not sealed; raises BudgetExhausted. For each of
      the parts ``people`` it says who may take part
    * ``sealed`` gives the bytes sealed for ``key``, to be sent again; None when it is not sealed
    * ``seal_of`` is the SHA-256 of what was sealed for ``key``, "" when nothing was
    * ``seal`` fixes the only bytes that will ever be sent under ``key``
    * ``receipt`` is to travel with what was sealed last; ``acknowledge`` takes what the server echoes ("": nothing yet)
    """

    def afford(self, release: Release) -> None: ...
    def reserve(self, release: Release, people: Sequence[Part] = ()) -> list[Mask]: ...
    def sealed(self, key: str) -> bytes | None: ...
    def seal_of(self, key: str) -> str: ...
    def latest(self, run: str) -> int: ...
    def seal(self, key: str, payload: bytes) -> None: ...
    def receipt(self) -> str: ...
    def acknowledge(self, receipt: str) -> None: ...
    def key_for(self, purpose: str) -> bytes: ...


def check_texts(texts: Mapping[str, object], shortest: int = 1) -> None:
    """Refuse a name that is not a printable text of ``shortest`` to LONGEST characters; ``texts``: role -> name.

    Printable: no control characters, line breaks, escape codes or signs that turn the direction of text. Such a name
    would stand in the ledger for ever, and be printed.
    """
    for name, text in texts.items():
        if not isinstance(text, str) or not shortest <= len(text) <= LONGEST or not text.isprintable():
            raise PrivacyError(
                f"the {name} of a release is not a printable text of {shortest} to {LONGEST} characters",
                remedy="give it a name of letters, digits and plain signs",
            )
