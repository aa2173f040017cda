"""The groups by which a site counts: who pays for a release, over all data sets of the site.

========================  ==========================================================================================
group                     who is in it
========================  ==========================================================================================
``*`` (EVERYBODY)         everybody: units that cannot be told apart by name; what it pays adds to every group for ever
``NAME/training``         the persons of the data set NAME who are trained on
``NAME/training:STAGE``   those who were first met in this one of several disjoint stages
``NAME/held-out``         those who are kept for scores
========================  ==========================================================================================

A person may be in several groups, and pays what all of them pay; only groups that exclude each other
(:func:`excludes`) never share anybody.
"""

from __future__ import annotations

import re

from llmchain_fl.core.errors import PrivacyError

EVERYBODY = "*"
HELD_OUT = "held-out"
TRAINING = "training"
SITE = "site"
"""Who pays for a round of unit ``site``, as a plan names it; at the site itself that is everybody."""

_GROUP = re.compile(rf"(?P<data_set>[^/\s]+)/(?P<purpose>{HELD_OUT}|{TRAINING}(:[^/\s]+)?)")


def site_group(group: str, data_set: str) -> str:
    """A plan's group (``training``, ``training:STAGE``, ``held-out``) as the group of one data set of the site.

    Raises:
        PrivacyError: there is no such group, or a name in it holds a slash or a blank.
    """
    if group in (EVERYBODY, SITE):
        return EVERYBODY
    return check_group(f"{data_set}/{group}")


def check_group(group: str) -> str:
    """``group``, if it is one of the table above.

    Raises:
        PrivacyError: it is not, so that nobody could say whom else it excludes.
    """
    if group != EVERYBODY:
        _parts(group)
    return group


def excludes(one: str, other: str) -> bool:
    """Whether a person of one group may never be in the other.

    =====================================================  =========
    groups                                                 excluded
    =====================================================  =========
    of different data sets                                 no
    the same group; ``*`` and any                          no
    ``training:a`` and ``training:b`` of one data set      yes
    ``held-out`` and any ``training...`` of one data set   yes
    ``training`` and ``training:a`` of one data set        no
    =====================================================  =========

    Raises:
        PrivacyError: there is no such group.
    """
    if one == other or EVERYBODY in (one, other):
        return False
    (data_set, purpose), (another, second) = _parts(one), _parts(other)
    if data_set != another:
        return False
    return HELD_OUT in (purpose, second) or TRAINING not in (purpose, second)


def _parts(group: str) -> tuple[str, str]:
    match = _GROUP.fullmatch(group)
    if match is None:
        raise PrivacyError(
            f"no group of a site is called {group!r}",
            remedy=f"{EVERYBODY!r}, or the data set, a slash, and {TRAINING}, {TRAINING}:STAGE or {HELD_OUT}",
        )
    return match["data_set"], match["purpose"]
