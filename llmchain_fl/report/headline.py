"""What a run is, from its settings as resolved: its heading and badges. A title's own words stand only where they fit.

==========================================  =================================================
title of the scenario                       shown as its author's words
==========================================  =================================================
speaks of privacy, privacy is off           no
says "without privacy", privacy is on       no
names another epsilon than the target       no
speaks of guards, there are none            no
counts sites or stages, other than there    no
anything else                               yes
==========================================  =================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmchain_fl.report.wording import count, power

NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
}  # fmt: skip
WITHOUT = r"\b(?:without|no|not|non)[ -](?:\w+[ -])?"


@dataclass(frozen=True)
class Headline:
    """The heading, the author's own title ("" where it does not fit the settings), and short facts."""

    title: str
    words: str
    badges: tuple[str, ...]


def title_of(settings: Mapping[str, Any]) -> str:
    """One line: the author's own title where it fits the settings, else what the run is."""
    head = headline(settings)
    return head.words or ", ".join([head.title, *head.badges])


def headline(settings: Mapping[str, Any]) -> Headline:
    """Of settings as resolved (``config.toml`` as a tree); what is missing is not said."""
    sites, stages = int(_of(settings, "sites", "count") or 0), settings.get("stage") or []
    kind = str(_of(settings, "task", "kind") or "run").replace("-", " ")
    parts = [kind, *([count(sites, "site")] if sites else []), *([count(len(stages), "stage")] if stages else [])]
    title, words = ", ".join(parts), str(settings.get("title") or "")
    return Headline(title[0].upper() + title[1:], words if fits(words, settings) else "", _badges(settings))


def fits(title: str, settings: Mapping[str, Any]) -> bool:
    """Whether the title says nothing that the settings deny; the table above."""
    text = title.lower()
    private = bool(_of(settings, "privacy", "enabled"))
    says = re.search(r"\b(?:privacy|private|epsilon)\b", text)
    if says and private == bool(re.search(WITHOUT + r"(?:privacy|private|epsilon)\b", text)):
        return False
    target = re.search(r"\bepsilon (\d+(?:\.\d+)?)", text)
    if target and float(target[1]) != _of(settings, "privacy", "epsilon"):
        return False
    guards = re.search(r"\bguards?\b", text) and not re.search(WITHOUT + r"guards?\b", text)
    if guards and not _of(settings, "continual", "guards"):
        return False
    counts = {
        "stages?": len(settings.get("stage") or []),
        "(?:sites?|branches|hospitals)": _of(settings, "sites", "count"),
    }
    numbers = "|".join([*NUMBERS, r"\d+"])
    for noun, there in counts.items():
        for match in re.finditer(rf"\b({numbers}) (?:[\w-]+ )?{noun}\b", text):
            if there and (NUMBERS.get(match[1]) or int(match[1] if match[1].isdigit() else 0)) != there:
                return False
    return True


def _badges(settings: Mapping[str, Any]) -> tuple[str, ...]:
    guards, rule = _of(settings, "continual", "guards"), _of(settings, "aggregation", "rule")
    model = _of(settings, "model", "path")
    badges = [
        _privacy(settings),
        f"rule {rule}" if rule else "",
        f"guards {', '.join(map(str, guards))}" if guards else "no guards",
        f"base {str(model).rstrip('/').rpartition('/')[2]}" if model else "",
        f"seed {settings['seed']}" if "seed" in settings else "",
    ]
    return tuple(badge for badge in badges if badge)


def _privacy(settings: Mapping[str, Any]) -> str:
    privacy = settings.get("privacy")
    if not isinstance(privacy, Mapping) or not privacy.get("enabled"):
        return "no differential privacy"
    target = privacy.get("epsilon")
    unit, delta = privacy.get("unit", "record"), privacy.get("delta")
    if not target or not delta:
        return f"differential privacy per {unit}"
    shared = ", noise on the sum" if privacy.get("noise") == "sum" else ""
    return f"differential privacy: target epsilon {target:g}, delta {power(float(delta))}, per {unit}{shared}"


def _of(settings: Mapping[str, Any], section: str, key: str) -> Any:
    table = settings.get(section)
    return table.get(key) if isinstance(table, Mapping) else None
