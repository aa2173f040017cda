"""The site file of a kit: filled in from the federation's page and its scenario, and no looser than they ask.

==========================================  =================================================================
key that the page leaves out                is
==========================================  =================================================================
``data.train``                              ``records/{stage}.csv``
``limits.require_privacy``, ``units``       as the scenario: its unit, and no other
``limits.epsilon``, ``delta``               the scenario's; without a target, the default of a site file
``limits.base_models``                      the known name, or the digest of the folder
``limits.max_steps``, ``_rank``, ``_tokens`` what the scenario asks for
``secure.peers``, ``identity``              the roster's; the kit's key
``secure.only``, ``min_peers``              true and 3, where the scenario has ``secure.sum``
``secure.counted_peers``                    a fault where noise is shared: nobody else may decide whom a site trusts
``approved.bundles``                        the code of this installation
==========================================  =================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmchain_fl.config.schema import RunConfig
from llmchain_fl.config.write import table_to_toml
from llmchain_fl.core.base_digest import base_digest
from llmchain_fl.core.base_model import KNOWN, locate
from llmchain_fl.core.errors import ConfigError, ModelError
from llmchain_fl.core.printable import printable
from llmchain_fl.onprem.federation import NOTHING, Federation, Tables
from llmchain_fl.onprem.keys import IDENTITY_KEY
from llmchain_fl.onprem.roster import Roster

MOST_SHOWN = 100
"""Labels that the comment on top names."""
TRAIN = "records/{stage}.csv"


def base_of(config: RunConfig) -> tuple[str, str]:
    """(what a site file allows, digest of the folder) of the scenario's base; no digest where it is not on this disk.

    Raises:
        ConfigError: neither a known name nor a folder, so that it cannot be pinned.
    """
    path = config.model.path
    try:
        located = locate(path)
        digest = base_digest(Path(located.path)) if located.local else ""
    except ModelError as error:
        raise ConfigError([f"scenario: {error.what}"], remedy=error.remedy) from None
    if path not in KNOWN and not digest:
        raise ConfigError(
            [f"scenario: model.path = {path!r} is not on this disk, so sites cannot be told its digest"],
            remedy="download it into a folder and name that",
        )
    return (path if path in KNOWN else digest), digest


def check_trust(federation: Federation) -> None:
    """Refuse a page that leaves open whom the sites trust, where that decides what they pay.

    Raises:
        ConfigError: which sites do not say.
    """
    page, others = federation.page, len(federation.page.sites) - 1
    silent = [name for name, own in page.sites.items() if "counted_peers" not in {**page.secure, **own.secure}]
    if federation.config.privacy.noise == "sum" and silent:
        raise ConfigError(
            [f"secure.counted_peers is missing for {', '.join(silent)}: the scenario lets sites share their noise"],
            remedy=f"write [secure] counted_peers = how many of the {others} other sites a site trusts never to tell "
            "theirs (docs/secure-sum.md); " + NOTHING,
        )


def site_tables(federation: Federation, name: str, roster: Roster, allowed: str, bundles: list[str]) -> dict[str, Any]:
    """All tables of the site file of ``name``."""
    config = federation.config
    usual = {"data": {"train": TRAIN}, "limits": _limits(config, allowed), "secure": _secure(config), "compute": {}}
    page = Tables.over(federation.page, usual)
    tables: dict[str, Any] = federation.page.sites[name].over(page)
    tables["secure"]["identity"] = IDENTITY_KEY
    tables["secure"]["peers"] = {other: key for other, key in roster.identities().items() if other != name}
    filled = {table: values for table, values in tables.items() if values}
    return {"name": name, "state": "state", **filled, "approved": {"bundles": bundles}}


def _limits(config: RunConfig, allowed: str) -> dict[str, Any]:
    privacy = config.privacy
    private = {"units": [privacy.unit], "delta": privacy.delta} if privacy.enabled else {}
    budget = {"epsilon": privacy.epsilon} if privacy.enabled and privacy.epsilon else {}
    return {
        "require_privacy": privacy.enabled,
        **private,
        **budget,
        "base_models": [allowed],
        "max_steps": config.train.steps,
        "max_rank": max(config.adapter.rank, *config.adapter.site_ranks, 1),
        "max_tokens": config.model.max_tokens,
    }


def _secure(config: RunConfig) -> dict[str, Any]:
    return {"only": True, "min_peers": 3} if config.secure.sum else {}


def site_text(federation: Federation, tables: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """The file, with stages and labels in a comment on top."""
    stages = [stage.name for stage in federation.config.stage]
    train = str(tables["data"]["train"])
    lines = [
        f"The site file of {tables['name']} in the federation {federation.page.name}: what this site allows.",
        "It is the data holder's own and is never sent. All keys: docs/on-flower.md. After a change: site check.",
        "",
        "stages and where their records are looked for:",
        *(f"  {stage:20} {train.replace('{stage}', stage)}" for stage in stages),
    ]
    if labels:
        shown = list(labels)[:MOST_SHOWN]
        more = [f"  and {len(labels) - MOST_SHOWN} more, in kit.toml"] * (len(labels) > MOST_SHOWN)
        lines += [
            f"labels, {len(labels)}; records with another one are left out:",
            *(f"  {name}" for name in shown),
            *more,
        ]
    comment = "".join(f"# {printable(line)}".rstrip() + "\n" for line in lines)
    return f"{comment}\n{table_to_toml(tables)}"
