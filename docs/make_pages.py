"""Writes the pages that are made from the code: ``docs/configuration.md``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llmchain_fl.config.read import walk_fields
from llmchain_fl.config.schema import RunConfig

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


def page() -> str:
    """The whole page as Markdown."""
    lines = [
        "# Configuration",
        "",
        "Made by `make docs` from `llmchain_fl/config/schema.py`. Settings stand in a scenario's TOML file;",
        "on the command line `--set key=value`. `--set stage.rounds=2` changes every stage,",
        "`--set stage.0.rounds=2` the first one.",
        "",
        "| setting | default | bounds | meaning |",
        "|---|---|---|---|",
    ]
    for key, field in walk_fields(RunConfig):
        default = json.dumps(field.get_default(call_default_factory=True), ensure_ascii=False).replace("|", "\\|")
        text = (field.description or "").replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{key}` | `{default}` | {bounds(field)} | {text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
