"""Writes the pages that are made from the code: ``docs/configuration.md``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llmchain_fl.aggregation import RULES
from llmchain_fl.config.read import walk_fields, walk_guards
from llmchain_fl.config.schema import RunConfig
from llmchain_fl.guards import GUARDS
from llmchain_fl.guards.protocol import ServerGuard

PAGE = Path(__file__).with_name("configuration.md")


def bounds(field: object) -> str:
    """``>= 1, <= 100`` of a field's metadata."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {getattr(part, name):g}"
        for part in field.metadata
        for name, sign in signs.items()
        if hasattr(part, name)
    ]  # type: ignore[attr-defined]
    return ", ".join(found)


def row(key: str, field: object) -> str:
    """One setting."""
    told = field.get_default(call_default_factory=True)  # type: ignore[attr-defined]
    default = json.dumps(told, ensure_ascii=False).replace("|", "\\|")
    text = (field.description or "").replace("\n", " ").replace("|", "\\|")  # type: ignore[attr-defined]
    return f"| `{key}` | `{default}` | {bounds(field)} | {text} |"


def rules() -> list[str]:
    """What each aggregation rule declares."""
    lines = [
        "| rule | | a site trains | stays at the site | exact | linear | factors between rounds | ranks |",
        "|" + "---|" * 8,
    ]
    for name, rule in RULES.items():
        says = (sys.modules[type(rule).__module__].__doc__ or "").splitlines()[0].partition(": ")[2].rstrip(".")
        moves = ", ".join(rule.trained) + (" (in turn)" if rule.turns else "")
        told = [moves, ", ".join(rule.owns), "yes" if rule.exact else "no", "yes" if rule.linear else "no"]
        told += [
            f"the rule {rule.unsteady}" if rule.unsteady else "keep their coordinates",
            "any" if rule.any_rank else "one",
        ]
        lines.append(f"| `{name}` | {says} | {' | '.join(told)} |")
    return lines


def guards() -> list[str]:
    """What each guard declares, with its usual settings."""
    lines = ["| guard | | acts | its records | claim | needs a rule because it |", "|" + "---|" * 6]
    for name, guard in GUARDS.items():
        usual = guard.settings()
        server = [] if guard.server is ServerGuard else ["server"]
        where = " and ".join(["site"] * (guard.site is not None) + server)
        needs = "; ".join(need.does for need in guard.needs)
        says = (guard.settings.__doc__ or "").splitlines()[0].rstrip(".")
        lines.append(f"| `{name}` | {says} | {where} | {usual.records} | {usual.claim} | {needs} |")
    return lines


def page() -> str:
    """The whole page as Markdown."""
    lines = [
        "# Configuration",
        "",
        "Made by `make docs` from `llmchain_fl/config/schema.py` and from what rules and guards declare. Settings are",
        "in a scenario's TOML file; on the command line `--set key=value`. `--set stage.rounds=2` changes every stage,",
        "`--set stage.0.rounds=2` the first one.",
        "",
        "| setting | default | bounds | meaning |",
        "|---|---|---|---|",
        *(row(key, field) for key, field in walk_fields(RunConfig)),
        "",
        "## Settings of guards",
        "",
        "`[continual.NAME]`; they count where `continual.guards` names the guard.",
        "",
        "| setting | default | bounds | meaning |",
        "|---|---|---|---|",
        *(row(key, field) for key, field in walk_guards()),
        "",
        "## What rules and guards declare",
        "",
        "By these a run is refused whose parts do not go together (`llmchain_fl/planning/compatible.py`).",
        "",
        *rules(),
        "",
        *guards(),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
