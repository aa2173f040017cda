"""Who asks: a token -> a tenant and perhaps one person; and which adapters may answer it.

Tokens are 256 random bits, so their SHA-256 alone is kept; every known hash is compared, each in constant time, whether
one has matched or not. An adapter that is unknown, revoked or another tenant's is the same 404: nobody learns which.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.serve.served import Served
from llmchain_fl.serve.settings import Tenant
from llmchain_fl.serve.tokens import token_hash

MINUTE = 60.0


@dataclass(frozen=True)
class Caller:
    """Who a token stands for. ``person``: the token's own person; empty: the tenant's."""

    tenant: str
    person: str
    speaks_for_persons: bool


@dataclass
class Bucket:
    """At most ``per_minute`` rows a minute, in bursts of as many; 0: no bound."""

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    level: float = field(init=False)
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.level, self.since = float(self.per_minute), self.clock()

    def take(self, rows: int) -> bool:
        """Whether ``rows`` more may come now."""
        if not self.per_minute:
            return True
        now = self.clock()
        self.level = min(float(self.per_minute), self.level + (now - self.since) * self.per_minute / MINUTE)
        self.since = now
        if rows > self.level:
            return False
        self.level -= rows
        return True


class Tenants:
    """All tenants of a server.

    Args:
        settings: name -> its settings.
        served: the adapters.
        revoked: whether the address of an adapter has been taken back by now.
        beside: (label, another label): who may use the one may use the other.

    Raises:
        ConfigError: a tenant is given an adapter that is not served.
    """

    def __init__(
        self,
        settings: Mapping[str, Tenant],
        served: Sequence[Served],
        revoked: Callable[[str], bool] = lambda address: False,
        beside: tuple[str, str] = ("", ""),
    ) -> None:
        by_label = {one.label: one for one in served}
        missing = [f"tenant.{name}.adapters: {label} is not served (there is {', '.join(by_label)})"
                   for name, one in settings.items() for label in one.adapters if label not in by_label]  # fmt: skip
        if missing:
            raise ConfigError(missing, remedy="name labels (name@version) of the folders under [[adapter]]")
        self._callers = [
            (token, Caller(name, person, one.speaks_for_persons))
            for name, one in settings.items()
            for person, token in [*(("", token) for token in one.tokens), *one.persons.items()]
        ]
        self._adapters = {name: [by_label[label] for label in one.adapters] for name, one in settings.items()}
        for own in self._adapters.values():
            if beside[0] in [one.label for one in own] and by_label[beside[1]] not in own:
                own.append(by_label[beside[1]])
        self._buckets = {name: Bucket(one.per_minute) for name, one in settings.items()}
        self._revoked = revoked

    def caller(self, token: str) -> Caller | None:
        """Whose token it is; None: nobody's."""
        asked, found = token_hash(token), None
        for known, caller in self._callers:
            if hmac.compare_digest(known, asked):
                found = caller
        return found

    def adapters(self, tenant: str) -> list[Served]:
        """What a tenant may use now."""
        return [one for one in self._adapters[tenant] if not self._revoked(one.address)]

    def adapter(self, tenant: str, asked: str) -> Served | None:
        """The adapter that answers.

        =========================================  =========================================
        asked                                      result
        =========================================  =========================================
        nothing                                    the tenant's first one
        a label of the tenant's                    it
        a name without version                     the first of the tenant's of this name
        anything else, revoked, another tenant's   None
        the tenant's first one is revoked          None, not the next one in silence
        =========================================  =========================================
        """
        own = self._adapters[tenant]
        found = own[0] if not asked else next((one for one in own if asked in (one.label, one.name)), None)
        return None if found is None or self._revoked(found.address) else found

    def take(self, tenant: str, rows: int) -> bool:
        """Whether a tenant may send so many rows now."""
        return self._buckets[tenant].take(rows)
