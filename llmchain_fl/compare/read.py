"""A comparison's TOML file -> ``Comparison``, or one ``ConfigError`` with every fault in the user's words.

::

    title = "which rule learns most"
    scenario = "banking77"             # a shipped scenario, or the path of one
    seeds = [1, 2, 3]
    score = "accuracy"                 # what is compared
    report = ["bytes", "seconds"]      # what else stands in the tables
    set = { "sites.count" = 30 }       # for every cell

    [[axis]]
    name = "rule"
    [axis.values]
    ffa = { "aggregation.rule" = "ffa" }
    fedit = { "aggregation.rule" = "fedit" }

    [[skip]]                           # combinations that make no sense
    rule = ["ffa"]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmchain_fl.compare.measures import MEASURES
from llmchain_fl.compare.plan import Axis, Comparison, Only, slug
from llmchain_fl.compare.settings import plain_key, setting_lines
from llmchain_fl.config.read import parse_setting
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.core.words import nearest
from llmchain_fl.scenario import find_scenario

KEYS = ("title", "about", "scenario", "seeds", "set", "axis", "skip", "score", "report", "continual")
AXIS_KEYS = ("name", "values", "repeat", "baseline")
REPORT = ("bytes", "bytes_up", "bytes_down", "seconds")
REPORT_CONTINUAL = ("average_accuracy", "la", "forgetting", "bwt")
LONGEST_LABEL = 40
REMEDY = "correct the lines above in the comparison; nothing was started"


def read_comparison(path: Path, given: Sequence[str] = ()) -> Comparison:
    """Read one file, lay ``--set`` values over its ``set``, and check all of it.

    Raises:
        ConfigError: the file is missing or no TOML, or has faults (all of them in one error).
    """
    tree = read_toml(path, "comparison file", remedy="check the path, or see --list")
    return build_comparison(path.stem, tree, given)


def build_comparison(name: str, tree: Mapping[str, Any], given: Sequence[str] = ()) -> Comparison:
    """The same from a mapping.

    Raises:
        ConfigError: with one line for every fault.
    """
    faults: list[str] = []
    _unknown(tree, KEYS, "", faults)
    axes = tuple(_axis(entry, faults) for entry in _tables(tree, "axis", faults))
    continual = _typed(tree, "continual", bool, False, faults)
    named = _known_list(tree, "report", REPORT_CONTINUAL if continual else REPORT, faults)
    made = Comparison(
        name=name,
        title=_typed(tree, "title", str, "", faults) or name,
        about=_typed(tree, "about", str, "", faults),
        scenario=_scenario(tree, faults),
        seeds=_seeds(tree, faults),
        settings=(*setting_lines(tree.get("set", {}), "set", faults), *_given(given, faults)),
        axes=axes,
        skip=tuple(_skip(entry, axes, faults) for entry in _tables(tree, "skip", faults)),
        score=_known_list({"score": [tree.get("score", "accuracy")]}, "score", (), faults)[0],
        report=named,
        continual=continual,
    )
    _check_axes(made, "axis" in tree, faults)
    if not faults and not list(made.combinations()):
        faults.append("skip leaves no cell to run")
    if faults:
        raise ConfigError(faults, remedy=REMEDY)
    return made


def read_only(comparison: Comparison, texts: Sequence[str]) -> Only:
    """``["rule=ffa,fedsvd"]`` -> ``{"rule": ["ffa", "fedsvd"]}``.

    Raises:
        ConfigError: an axis or a label that the comparison does not have.
    """
    faults: list[str] = []
    wanted: dict[str, list[str]] = {}
    for text in texts:
        axis, _, labels = text.partition("=")
        names = [label.strip() for label in labels.split(",") if label.strip()]
        wanted.setdefault(axis.strip(), []).extend(names)
        if not names:
            faults.append(f"--only {text!r} is not of the form axis=label,label")
    faults += _label_faults("--only", wanted, comparison.axes)
    if faults:
        raise ConfigError(faults)
    return wanted


def read_seeds(text: str) -> tuple[int, ...]:
    """``"1,2"`` -> ``(1, 2)``; nothing for an empty text.

    Raises:
        ConfigError: no different whole numbers.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) < 2**32 for part in parts) or len(set(parts)) < len(parts):
        raise ConfigError([f"--seeds {text!r}: must be different whole numbers from 0 to 2^32 - 1, such as 1,2,3"])
    return tuple(map(int, parts))


def _axis(entry: Mapping[str, Any], faults: list[str]) -> Axis:
    name = _typed(entry, "name", str, "", faults, "axis")
    where = f"axis {name}" if name else "axis"
    _unknown(entry, AXIS_KEYS, f"{where}: ", faults)
    values = entry.get("values", {})
    if not name:
        faults.append('an axis has no name; write name = "rule"')
    if not isinstance(values, Mapping) or not values:
        faults.append(f"{where} has no values; write [axis.values] with a table of settings for each label")
        values = {}
    baseline = _typed(entry, "baseline", str, "", faults, where)
    if baseline and baseline not in values:
        faults.append(f"{where}: baseline = {baseline!r} is not one of its labels{nearest(baseline, list(values))}")
    for label in values:
        if len(label) > LONGEST_LABEL or "," in label or not label.strip() or not label.isprintable():
            faults.append(f"{where}: a label is 1 to {LONGEST_LABEL} characters on one line, without a comma")
    lines = {label: setting_lines(table, f'{where}, "{label}"', faults) for label, table in values.items()}
    return Axis(name, lines, _typed(entry, "repeat", bool, False, faults, where), baseline)


def _skip(entry: Mapping[str, Any], axes: Sequence[Axis], faults: list[str]) -> Only:
    rule = {axis: [labels] if isinstance(labels, str) else labels for axis, labels in entry.items()}
    bad = [axis for axis, labels in rule.items() if not (isinstance(labels, list) and labels)]
    faults += [f"skip: {axis} = {entry[axis]!r}: must be a label or a list of labels" for axis in bad]
    rule = {axis: [str(label) for label in labels] for axis, labels in rule.items() if axis not in bad}
    if not entry:
        faults.append("a skip without an axis would skip everything")
    faults += _label_faults("skip", rule, axes)
    return {axis: labels for axis, labels in rule.items() if axis in {a.name for a in axes}}


def _label_faults(where: str, rule: Only, axes: Sequence[Axis]) -> list[str]:
    known = {axis.name: list(axis.values) for axis in axes}
    found = [f"{where}: there is no axis {axis!r}{nearest(axis, list(known))}" for axis in rule if axis not in known]
    return found + [
        f"{where}: axis {axis} has no label {label!r}{nearest(label, known[axis])}"
        for axis, labels in rule.items()
        for label in labels
        if axis in known and label not in known[axis]
    ]


def _check_axes(made: Comparison, there: bool, faults: list[str]) -> None:
    """Faults that no single axis shows."""
    names = [axis.name for axis in made.axes]
    if not made.shown:
        faults.append("every axis is a repeat: nothing is compared" if there else "there is no [[axis]]")
    faults += [f"two axes have the name {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    if "seed" in names:
        faults.append("no axis may be called seed; name the seeds in seeds = [1, 2, 3]")
    owner: dict[str, str] = {}
    for axis in made.axes:
        paths = [slug([label]) for label in axis.values]
        if len(set(paths)) < len(paths):
            faults.append(f"axis {axis.name}: two labels look alike in a path ({', '.join(sorted(paths))})")
        for key in dict.fromkeys(plain_key(line) for lines in axis.values.values() for line in lines):
            if owner.setdefault(key, axis.name) != axis.name:
                faults.append(f"axes {owner[key]} and {axis.name} both set {key}")


def _scenario(tree: Mapping[str, Any], faults: list[str]) -> str:
    name: str = _typed(tree, "scenario", str, "", faults)
    if not name:
        faults.append("scenario is missing: a shipped scenario (see llmchain-fl scenarios) or the path of a .toml file")
        return ""
    try:
        find_scenario(name)
    except ConfigError as error:
        faults += error.faults
    return name


def _seeds(tree: Mapping[str, Any], faults: list[str]) -> tuple[int, ...]:
    seeds = tree.get("seeds", [1, 2, 3])
    right = isinstance(seeds, list) and seeds and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)
    if not right or len(set(seeds)) < len(seeds):
        faults.append(f"seeds = {seeds!r}: must be a list of different whole numbers from 0 to 2^32 - 1")
        return (1,)
    return tuple(seeds)


def _given(given: Sequence[str], faults: list[str]) -> tuple[str, ...]:
    lines: list[str] = []
    for text in given:
        try:
            path, value = parse_setting(text)
        except ConfigError as error:
            faults += error.faults
            continue
        lines += setting_lines({".".join(path): value}, "--set", faults)
    return tuple(lines)


def _unknown(tree: Mapping[str, Any], known: Sequence[str], where: str, faults: list[str]) -> None:
    faults += [f"{where}{key} is not a key of a comparison{nearest(key, known)}" for key in tree if key not in known]


def _typed(tree: Mapping[str, Any], key: str, kind: type, default: Any, faults: list[str], where: str = "") -> Any:
    value = tree.get(key, default)
    if type(value) is kind:
        return value
    wish = {bool: "true or false", str: "a text"}[kind]
    faults.append(f"{where}{': ' if where else ''}{key} = {value!r}: must be {wish}")
    return default


def _tables(tree: Mapping[str, Any], key: str, faults: list[str]) -> list[Mapping[str, Any]]:
    entries = tree.get(key, [])
    if isinstance(entries, list) and all(isinstance(entry, Mapping) for entry in entries):
        return entries
    faults.append(f"{key} is no list of tables; write [[{key}]]")
    return []


def _known_list(tree: Mapping[str, Any], key: str, default: Sequence[str], faults: list[str]) -> tuple[str, ...]:
    names = tree.get(key, list(default))
    if not isinstance(names, list):
        faults.append(f"{key} = {names!r}: must be a list of names")
        return tuple(default)
    for name in names:
        if name not in MEASURES:
            faults.append(f"{key}: {name!r} is not measured{nearest(str(name), list(MEASURES))}")
    return tuple(str(name) for name in names)
