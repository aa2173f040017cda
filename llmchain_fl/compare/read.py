"""A comparison's TOML file -> ``Comparison``, or one ``ConfigError`` with every fault in the user's words.

::

    title = "which rule learns most"
    scenario = "banking77"             # a shipped scenario, or the path of one
    seeds = [1, 2, 3]
    score = "accuracy"                 # what is compared; default: the main score of the task
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

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from llmchain_fl.compare.measures import MEASURES
from llmchain_fl.compare.plan import Axis, Comparison, Only, slug
from llmchain_fl.compare.settings import plain_key, setting_lines
from llmchain_fl.config.read import parse_setting
from llmchain_fl.config.schema import TaskConfig
from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.tasks.kind import TASKS, task_kind
from llmchain_fl.core.toml_file import read_toml
from llmchain_fl.core.words import nearest
from llmchain_fl.scenario import find_scenario

KEYS = ("title", "about", "scenario", "seeds", "set", "axis", "skip", "score", "report", "continual")
AXIS_KEYS = ("name", "values", "repeat", "baseline")
REPORT = ("bytes", "bytes_up", "bytes_down", "seconds")
REPORT_CONTINUAL = ("average_accuracy", "la", "forgetting", "bwt")
LONGEST_LABEL = 40
DEFAULT = {False: "rules-demo", True: "guards-demo"}
"""What ``compare`` plays without a name; True: with ``--continual``."""
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
    scenario = _scenario(tree, faults)
    scores = _scores(scenario)
    named = _known_list(tree, "report", REPORT_CONTINUAL if continual else REPORT, scores, faults)
    made = Comparison(
        name=name,
        title=_typed(tree, "title", str, "", faults) or name,
        about=_typed(tree, "about", str, "", faults),
        scenario=scenario,
        seeds=_seeds(tree, faults),
        settings=(*setting_lines(tree.get("set", {}), "set", faults), *_given(given, faults)),
        axes=axes,
        skip=tuple(_skip(entry, axes, faults) for entry in _tables(tree, "skip", faults)),
        score=_known_list({"score": [tree.get("score", scores[0])]}, "score", (), scores, faults)[0],
        report=named,
        continual=continual,
    )
    _check_axes(made, "axis" in tree, faults)
    if not faults and not list(made.combinations()):
        faults.append("skip leaves no cell to run")
    if faults:
        raise ConfigError(faults, remedy=REMEDY)
    return made


def shipped(*, continual: bool = False) -> dict[str, Path]:
    """Name -> file; with ``continual`` those that compare guards."""
    folder = Path(str(resources.files("llmchain_fl"))) / "comparisons"
    files = {path.stem: path for path in sorted(folder.glob("*.toml"))}
    return {name: path for name, path in files.items() if not continual or head(path).get("continual")}


def head(path: Path) -> dict[str, Any]:
    """The file as it is, unchecked."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def find_comparison(name: str, *, continual: bool = False) -> Path:
    """A shipped name, the path of a TOML file, or nothing for the default.

    Raises:
        ConfigError: neither; the nearest name is given.
    """
    known = shipped()
    name = name or DEFAULT[continual]
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix == ".toml":
        return path
    raise ConfigError(
        [f"there is no comparison {name!r}{nearest(name, list(known))}"],
        remedy=f"choose one of {', '.join(shipped(continual=continual))}, or give the path of a .toml file",
    )


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
    faults = [f"{where}: there is no axis {axis!r}{nearest(axis, list(known))}" for axis in rule if axis not in known]
    return faults + [
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


def _scores(scenario: str) -> list[str]:
    """Names of scores: those of the scenario's own task first, then of the other kinds of task."""
    try:
        section = read_toml(find_scenario(scenario)).get("task", {})
        mine = task_kind(section.get("kind", TaskConfig().kind)).metrics
    except (ConfigError, AttributeError):  # said of the scenario itself
        mine = ()
    others = (metric for kind in TASKS.values() for metric in kind.metrics)
    return list(dict.fromkeys(metric.name for metric in (*mine, *others)))


def _known_list(
    tree: Mapping[str, Any], key: str, default: Sequence[str], scores: Sequence[str], faults: list[str]
) -> tuple[str, ...]:
    names = tree.get(key, list(default))
    if not isinstance(names, list):
        faults.append(f"{key} = {names!r}: must be a list of names")
        return tuple(default)
    for name in names:
        if name not in (*MEASURES, *scores):
            faults.append(f"{key}: {name!r} is not measured{nearest(str(name), [*MEASURES, *scores])}")
    return tuple(str(name) for name in names)
