"""Which answers of a site count against it. Used by ``quarantine.py``.

=================================  ======  ======  ====================================================================
answer                             by      strike  why
=================================  ======  ======  ====================================================================
admitted                                   no      ends the strikes in a row, whatever else the site sent in the round
wrong-round, missing-name,         server  yes     a reply that must not be summed
extra-name, wrong-dtype,
wrong-shape, undecodable,
not-finite, norm, product, sum,
foreign-factor, other
wire                               server  yes     it cannot be read, or the site's program failed
no-answer                          server  yes     everybody waits ``sites.reply_seconds`` for it
duplicate                          server  no      the first reply was admitted
weight, scale                      server  no      constants of the run's configuration, not the site's
any other code                     server  no      a part of the server failed on it: nobody knows whose fault that is
error                              site    yes     its program crashed
training                           site    yes     it trained, and may have paid, for an update that it cannot give
unknown, or a code not listed      site    yes     it does not follow the protocol
budget, privacy                    site    no      its right; it says so at once and has paid nothing
secure                             site    no      it takes no part in this secure sum, or gave no keys for it
secure                             server  yes     a masked update that is none, or not signed by the site
data, config, model, run, wire,    site    no      an honest no, at once and for free: a stage may have no records there
admission
=================================  ======  ======  ====================================================================

What is no strike neither counts nor forgives: whoever lies and declines in turn is set aside all the same.
"""

from __future__ import annotations

from collections.abc import Mapping

REFUSED: Mapping[str, bool] = {
    "wrong-round": True,
    "missing-name": True,
    "extra-name": True,
    "wrong-dtype": True,
    "wrong-shape": True,
    "undecodable": True,
    "not-finite": True,
    "norm": True,
    "product": True,
    "sum": True,
    "foreign-factor": True,
    "other": True,
    "wire": True,
    "no-answer": True,
    "duplicate": False,
    "weight": False,
    "scale": False,
    "secure": True,
}
"""Why the server did not sum a reply -> whether that is a strike."""

DECLINED: Mapping[str, bool] = {
    "error": True,
    "training": True,
    "unknown": True,
    "budget": False,
    "privacy": False,
    "data": False,
    "config": False,
    "model": False,
    "run": False,
    "wire": False,
    "admission": False,
    "secure": False,
}
"""The code with which a site declined -> whether that is a strike."""


def is_strike(reason: str, *, declined: bool) -> bool:
    """Whether this answer counts against the site.

    Args:
        reason: why there was no update to sum: a reason of the server, or the site's code.
        declined: the site said so itself.
    """
    return DECLINED.get(reason, True) if declined else REFUSED.get(reason, False)
