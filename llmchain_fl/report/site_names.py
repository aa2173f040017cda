"""Which hospital or branch a simulated site is: ``site-00`` -> ``site-00 (airport)``, where a column dealt the records.

The name of a site stays what it is on the wire and in every file; seeds follow from it. What is shown is longer.

==================================  ===============================
the site holds                      shown
==================================  ===============================
one group of the column             ``site-00 (airport)``
several                             ``site-00 (airport and 2 more)``
no group, or no such file           ``site-00``
==================================  ===============================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmchain_fl.core.printable import printable
from llmchain_fl.report.readings import Row
from llmchain_fl.report.wording import short
from llmchain_fl.run_dir import RunDir

DEALT = "dealt.json"
"""What ``simulations/prepare.py`` writes beside the simulated sites' folders."""


def shown_names(run: RunDir) -> dict[str, str]:
    """Site -> its name with what it stands for; empty where no column dealt the records."""
    try:
        dealt = json.loads((run.sites / DEALT).read_bytes())
        sites, groups = dealt["sites"], dealt["groups"].items()
        held = {site: sorted(str(group) for group, place in groups if place == n) for n, site in enumerate(sites)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}
    return {site: f"{site} ({_told(names)})" for site, names in held.items() if names}


def with_names(run: RunDir) -> tuple[list[Row], dict[str, Any]]:
    """The run's rows and ``privacy.json``, every site under the name that is shown."""
    names, rows, privacy = shown_names(run), run.rows(), run.read_privacy()
    if not names:
        return list(rows), privacy
    sites: Mapping[str, Any] = privacy.get("sites") or {}
    named = {names.get(site, site): entry for site, entry in sites.items()}
    renamed: list[Row] = [{**row, "site": names.get(str(row.get("site")), row.get("site"))} for row in rows]
    return renamed, {**privacy, "sites": named} if sites else privacy


def _told(groups: list[str]) -> str:
    more = f" and {len(groups) - 1} more" if len(groups) > 1 else ""
    return short(printable(groups[0])) + more
