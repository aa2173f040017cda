"""Ninety kinds of bad input through the real ``main``: one error, exit code 2, no traceback, nothing lost, no torch.

All are played by one child process, so that what it has imported at the end can be asked.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CANARY = "Jane-Canary-1970"
GOOD = "".join(json.dumps({"text": f"{CANARY} {i}", "label": "ab"[i % 2]}) + "\n" for i in range(8))
SCENARIO = """
[task]
labels = ["a", "b"]
[data]
train = "good.jsonl"
test = "good.jsonl"
[[stage]]
name = "one"
rounds = 1
"""

CHILD = """
import contextlib, io, json, os, sys
from llmchain_fl.cli.main import main

said = []
for argv in json.load(sys.stdin):
    os.chdir(argv.pop(0))
    sys.argv = ["llmchain-fl", *argv]
    out, code, before = io.StringIO(), None, "torch" in sys.modules
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = repr(error)
    said.append([code, out.getvalue(), "torch" in sys.modules and not before])
print(json.dumps(said))
"""


class Bad(NamedTuple):
    """What is typed, what is in the folder first, and words of the error."""

    argv: str
    words: str
    files: dict[str, str | bytes | None] = {}  # noqa: RUF012
    """Name -> content; None: a folder."""
    torch: bool = False
    """Whether torch may be there: guards of the shipped scenarios load it."""


def data(name: str, content: str | bytes | None, words: str) -> Bad:
    """Training records of this kind."""
    return Bad(f"simulate s.toml --set data.train={name}", words, {name: content})


SETTINGS: dict[str, Bad] = {
    "no such scenario": Bad("simulate demmo", "did you mean demo?"),
    "no such file": Bad("simulate gone.toml", "there is no configuration file gone.toml"),
    "a folder": Bad("simulate f.toml", "cannot be read", {"f.toml": None}),
    "no TOML": Bad("simulate f.toml", "not valid TOML", {"f.toml": "a = = 1"}),
    "UTF-16": Bad("simulate f.toml", "UTF-16", {"f.toml": "a = 1".encode("utf-16")}),
    "not UTF-8": Bad("simulate f.toml", "line 1 is not UTF-8", {"f.toml": b"a = '\xe4'"}),
    "an empty file": Bad("simulate f.toml", "fault", {"f.toml": ""}),
    "a key twice": Bad("simulate f.toml", "not valid TOML", {"f.toml": "seed = 1\nseed = 2"}),
    "nested too deeply": Bad("simulate f.toml", "nested", {"f.toml": "a = " + "[" * 3000}),
    "a number over 64 bits": Bad("simulate f.toml", "64 bits", {"f.toml": f"seed = {2**70}"}),
    "an unknown section": Bad("simulate f.toml", "trane", {"f.toml": SCENARIO + "[trane]\nlr = 1"}),
    "an unknown key": Bad("simulate s.toml --set train.lrr=1", "did you mean train.lr?"),
    "a wrong type": Bad("simulate s.toml --set train.steps=many", "train.steps"),
    "out of bounds": Bad("simulate s.toml --set train.lr=-1", "train.lr"),
    "not finite": Bad("simulate s.toml --set train.lr=nan", "train.lr"),
    "no equals sign": Bad("simulate s.toml --set train.lr", "key=value"),
    "an empty key": Bad("simulate s.toml --set =1", "key=value"),
    "a stage that is not there": Bad("simulate s.toml --set stage.7.rounds=1", "stage.7.rounds"),
    "an unknown rule": Bad("simulate s.toml --set aggregation.rule=fedavg", "fedavg"),
    "an unknown guard": Bad('simulate s.toml --set continual.guards=["emma"]', "emma"),
    "an unknown task": Bad("simulate s.toml --set task.kind=clustering", "clustering"),
    "two stages of one name": Bad(
        "simulate f.toml", "the same name", {"f.toml": SCENARIO + '[[stage]]\nname = "one"\nrounds = 1\n'}
    ),
    "more of a cohort than sites": Bad("simulate s.toml --set sites.cohort=9", "sites.cohort = 9"),
    "privacy without a budget": Bad("simulate s.toml --set privacy.enabled=true", "privacy.epsilon"),
    "an unknown backend": Bad("simulate s.toml --backend mpi", "in-process, ray"),
}
LABELS: dict[str, Bad] = {
    "no label list": Bad("simulate s.toml --set task.labels=gone.txt", "gone.txt: no such file"),
    "a folder for a label list": Bad("simulate s.toml --set task.labels=l", "cannot be read as a file", {"l": None}),
    "an empty label list": Bad("simulate s.toml --set task.labels=l.txt", "holds no label", {"l.txt": "\n"}),
    "a label twice": Bad("simulate s.toml --set task.labels=l.txt", "the same as label 1", {"l.txt": "a\na\n"}),
    "a label list that is no JSON": Bad("simulate s.toml --set task.labels=l.json", "JSON", {"l.json": "{"}),
    "a label that is no text": Bad("simulate s.toml --set task.labels=l.json", "no text", {"l.json": "[1]"}),
    "a stage with an unknown label": Bad('simulate s.toml --set stage.labels=["aa"]', "did you mean a?"),
    "a range that is none": Bad("simulate s.toml --set stage.labels=0:99", "within 0:2"),
    "a record's label that is not in the list": Bad(
        'simulate s.toml --set task.labels=["a","x"]', "4 records (lines 2, 4, 6, 8) have a label that is not"
    ),
}
ROW = f'{{"text": "{CANARY}", "label": "a"}}\n'
CUT_OFF = gzip.compress(ROW.encode(), mtime=0)[:-9]
RECORDS: dict[str, Bad] = {
    "no file": Bad("simulate s.toml --set data.train=goof.jsonl", "did you mean good.jsonl?"),
    "no folder": Bad("simulate s.toml --set data.train=no/where.csv", "no further"),
    "an unknown suffix": data("t.doc", CANARY, "its suffix is '.doc'"),
    "an old workbook": data("t.xls", CANARY, "its suffix is '.xls'"),
    "an empty folder": data("t", None, "no file of records"),
    "a folder without the split": data("t/test.jsonl", ROW, "no split 'train'") ._replace(
        argv="simulate s.toml --set data.train=t"
    ),
    "no record": data("t.jsonl", "\n\n", "holds no record"),
    "a line that is no object": data("t.jsonl", ROW + f'["{CANARY}"]\n', "t.jsonl:2: line is not a JSON object"),
    "bytes that are no text": data("t.jsonl", ROW.encode() + b'{"text": "\xff"}\n', "t.jsonl:2: line is not UTF-8"),
    "an array that is cut off": data("t.json", f"[{ROW}", "not a well-formed JSON array"),
    "an array of texts": data("t.json", f'[\n{ROW}, "{CANARY}"]', "element is not a JSON object"),
    "a packed file that is cut off": data("t.jsonl.gz", CUT_OFF, "cannot be read as a file"),
    "a packed file that is none": data("t.csv.gz", CANARY, "cannot be read as a file"),
    "no header": data("t.csv", f"I am {CANARY},a\nI,b\n", "is the header line missing?"),
    "two columns of one name": data("t.csv", f"text,text\n{CANARY},a\n", "the name of an earlier column"),
    "a quote that is not closed": data("t.csv", f'text,label\n"{CANARY},a\n', "stray or unclosed quote"),
    "a row of another length": data("t.csv", f"text,label\n{CANARY}\n", "1 fields, the header has 2"),
    "an empty cell": data("t.csv", f"text,label\n{CANARY},\n", "a column 'label' that is empty"),
    "a list in a cell": data("t.jsonl", f'{{"text": ["{CANARY}"], "label": "a"}}\n', "that is no text"),
    "a nested column that is not there": Bad(
        'simulate s.toml --set data.columns={text="note.body"}', "no column 'note.body'"
    ),
    "no Parquet": data("t.parquet", CANARY, "not a readable Parquet file"),
    "no workbook": data("t.xlsx", CANARY, "not a readable Excel workbook"),
    "a name that is too long": Bad(f"simulate s.toml --set data.train={'x' * 400}.csv", "no such file"),
    "rows that are not there": Bad("simulate s.toml --set data.train=good.jsonl[90:]", "none of them in these rows"),
    "an unknown kind of generated records": Bad("simulate s.toml --set data.train=generated:nothing", "nothing"),
    "not one file a site": Bad("simulate s.toml --set data.train={site}.jsonl", "sites.count = 2"),
    "no test records": Bad("simulate s.toml --set data.test=gone.csv", "gone.csv: no such file"),
    "no public records": Bad("simulate s.toml --set continual.public=gone.csv", "gone.csv: no such file"),
    "a probe that is not there": Bad('simulate s.toml --set stream.probes={p="gone.csv"}', "gone.csv: no such file"),
    "a stage that keeps nothing": Bad('simulate s.toml --set stage.where={label="c"}', "no record is left"),
    "a where without its column": Bad('simulate s.toml --set stage.where={ward="c"}', "no column ward"),
    "nobody is named": Bad("simulate s.toml --set privacy.enabled=true privacy.epsilon=8", "8 training records name"),
    "faults of two sources at once": Bad(
        "simulate s.toml --set data.train=gone.csv data.test=away.csv", "2 faults"
    ),
}  # fmt: skip
RUN = {"run/config.toml": SCENARIO, "run/metrics.jsonl": "", "run/state/round": "precious"}
ADAPTER = {"a/work.json": '{"task": {"kind": "classification", "labels": [["a", "a"]]}}'}
RUNS: dict[str, Bad] = {
    "to resume nothing": Bad("simulate --resume gone", "gone does not exist"),
    "to resume a file": Bad("simulate --resume good.jsonl", "is not the directory of a run"),
    "to resume somewhere else": Bad("simulate --resume run --out o", "--resume", dict(RUN)),
    "to write where something is": Bad("simulate s.toml --out d", "not empty", {"d/thesis.txt": "precious"}),
    "to write into a file": Bad("simulate s.toml --out good.jsonl", "is there already"),
    "an adapter of nothing": Bad("predict gone text", "gone does not exist"),
    "an adapter that is not there yet": Bad("predict run text", "no adapter yet", dict(RUN)),
    "an adapter that is damaged": Bad("predict a text", "work.json is damaged", {"a/work.json": "{"}),
    "nothing to predict": Bad("predict a", "either texts or --file", dict(ADAPTER)),
    "two things to predict": Bad("predict a text --file good.jsonl", "either texts or --file", dict(ADAPTER)),
    "answers in a document": Bad("predict a text --out o.doc", "write .csv or .jsonl", dict(ADAPTER)),
    "answers over a file": Bad("predict a text --out good.csv", "it is there already", {**ADAPTER, "good.csv": "x"}),
    "answers into no folder": Bad("predict a text --out no/o.csv", "there is no folder no", dict(ADAPTER)),
    "a file to predict that is not there": Bad("predict a --file gone.csv", "no such file", dict(ADAPTER)),
    "a file to predict without the column": Bad(
        "predict a --file p.csv", "no column 'text'", {**ADAPTER, "p.csv": "note\nx\n"}
    ),
    "a column without an equals sign": Bad("evaluate a good.jsonl --column text", "name=column", dict(ADAPTER)),
    "records to score that are not there": Bad("evaluate a gone.csv", "no such file", dict(ADAPTER)),
    "records to score of other labels": Bad("evaluate a good.jsonl", "not in the public label list", dict(ADAPTER)),
    "a report of nothing": Bad("report gone", "gone does not exist"),
    "the next stage of nothing": Bad("next-stage gone one", "gone does not exist"),
    "to unlearn from nothing": Bad("unlearn gone --site a --out o", "gone does not exist"),
    "a digest of nothing": Bad("digest gone", "gone"),
    "a comparison that is not there": Bad("compare rules-demmo", "did you mean rules-demo?"),
    "no jobs": Bad("compare rules-demo --jobs 0", "from 1 to 256"),
    "seeds that are none": Bad("compare rules-demo --seeds x", "--seeds", torch=True),
    "a comparison that is no TOML": Bad("compare c.toml", "not valid TOML", {"c.toml": "= 1"}),
    "a check of a fault": Bad("check s.toml --set data.train=gone.csv", "keeps the run from starting"),
    "an unknown option": Bad("simulate s.toml --sett seed=1", "No such option"),
    "an unknown command": Bad("simulte", "No such command"),
}
TABLE = SETTINGS | LABELS | RECORDS | RUNS


def words_of(argv: str) -> list[str]:
    """The words of a command; ``--set`` takes all settings that follow it."""
    found: list[str] = []
    setting = False
    for word in argv.split():
        found += ["--set", word] if setting and not word.startswith("-") else [] if word == "--set" else [word]
        setting = word == "--set" or (setting and not word.startswith("-"))
    return found


def prepare(folder: Path, bad: Bad) -> None:
    """The files of one case."""
    for name, content in {"s.toml": SCENARIO, "good.jsonl": GOOD, **bad.files}.items():
        path = folder / name
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def held(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Said(NamedTuple):
    """How a command ended, what it said, whether torch was there, and the files before and after."""

    code: object
    text: str
    torch: bool
    before: dict[str, bytes]
    after: dict[str, bytes]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    home = tmp_path_factory.mktemp("bad")
    asked, before = [], {}
    for number, (name, bad) in enumerate(TABLE.items()):
        folder = home / str(number)
        folder.mkdir()
        prepare(folder, bad)
        before[name] = (folder, held(folder))
        asked.append([str(folder), *words_of(bad.argv)])
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        name: Said(*one, was, held(folder)) for (name, (folder, was)), one in zip(before.items(), found, strict=True)
    }


@pytest.mark.parametrize("name", TABLE)
def test_bad_input_is_one_error_that_says_what_is_wrong_and_nothing_is_lost(name: str, said: dict[str, Said]) -> None:
    one = said[name]
    assert one.code == 2, one.text
    assert "Traceback" not in one.text
    checked = name == "a check of a fault"
    assert one.text.count("error: ") + one.text.count("─ Error") == (0 if checked else 1), one.text
    assert TABLE[name].words in " ".join(one.text.split()), one.text
    assert CANARY not in one.text
    assert one.after == one.before
    assert TABLE[name].torch or not one.torch, "what can be said without torch is said before it is imported"


def test_the_table_has_at_least_sixty_kinds() -> None:
    assert len(TABLE) >= 60


# -- the outside world: what no input is to blame for -----------------------------------------------------------------

FULL = OSError(28, "No space left on device", "metrics.jsonl")
OUTSIDE: dict[str, tuple[Exception, str]] = {
    "a full disk": (FULL, "metrics.jsonl: No space left on device"),
    "a file that may not be read": (PermissionError(13, "Permission denied", "x.bin"), "see who may read"),
    "a folder for a file": (IsADirectoryError(21, "Is a directory", "adapter"), "name a file"),
    "a model that gives up": (ValueError(f"sizes 3 and 4\n{CANARY}"), "ValueError: sizes 3 and 4"),
    "memory that ran out": (MemoryError(), "out of memory"),
    "a package that is not there": (ModuleNotFoundError("x", name="ray"), "the package ray is not installed"),
    "an error without a word": (RuntimeError(), "RuntimeError"),
}


class Simulator:
    """A simulator whose run breaks off, after its first round or before."""

    def __init__(self, error: Exception, begun: bool) -> None:
        self._error, self._begun = error, begun

    def start(self, config: object, scenario: str, out: Path) -> Any:
        from llmchain_fl.run_dir import RunDir

        return RunDir.create(out, SCENARIO)

    def simulate(self, config: object, run: Any, *others: object, **named: object) -> None:
        if self._begun:
            (run.state / "round").write_text("precious")
        raise self._error


def play(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    from llmchain_fl.cli.main import main

    monkeypatch.setattr(sys, "argv", ["llmchain-fl", *argv])
    with pytest.raises(SystemExit) as ended:
        main()
    text = capsys.readouterr()
    assert "Traceback" not in text.out + text.err
    assert text.err.count("error: ") == 1
    return ended.value.code, text.err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare(tmp_path, Bad("", ""))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_run_that_the_outside_world_stops_says_what_is_kept_and_how_to_go_on(
    name: str, begun: bool, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, words = OUTSIDE[name]
    monkeypatch.setattr("llmchain_fl.cli.apps.simulator", lambda: Simulator(error, begun))
    code, text = play(["simulate", "s.toml", "--out", "run"], monkeypatch, capsys)
    assert code == 2
    assert words in text
    assert CANARY not in text
    assert ("--resume run" in text) is begun
    log = here / "run" / "error.log" if begun else next((here / "tmp").iterdir())
    assert type(error).__name__ in log.read_text()
    assert str(log.name) in text
    assert (here / "run" / "state" / "round").exists() is begun


def test_a_command_without_a_run_names_a_log_that_only_its_owner_reads(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gives_up(_: Path) -> str:
        raise FULL

    monkeypatch.setattr("llmchain_fl.core.base_digest.base_digest", gives_up)
    code, text = play(["digest", "."], monkeypatch, capsys)
    log = next((here / "tmp").iterdir())
    assert (code, log.stat().st_mode & 0o077) == (2, 0)
    assert f"make room on that disk; the traceback is in {log}" in text


def test_where_nothing_can_be_written_the_error_is_said_all_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> tuple[int, str]:
        raise FULL

    monkeypatch.setattr("tempfile.mkstemp", full)
    monkeypatch.setattr("llmchain_fl.core.base_digest.base_digest", full)
    code, text = play(["digest", "."], monkeypatch, capsys)
    assert code == 2
    assert "no traceback could be written" in text


def test_answers_that_cannot_be_written_are_one_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Task:
        def predict(self, texts: list[str], top: int) -> list[list[tuple[str, float]]]:
            return [[("a", 1.0)] for _ in texts]

    def full(*_: object) -> None:
        raise FULL

    prepare(here, Bad("", "", dict(ADAPTER)))
    monkeypatch.setattr("llmchain_fl.cli.trained.open_trained", lambda _: (None, Task()))
    monkeypatch.setattr("llmchain_fl.atomic_file.atomic_write", full)
    code, text = play(["predict", "a", "text", "--out", "o.csv"], monkeypatch, capsys)
    assert code == 2
    assert "No space left" in text


def test_a_tensorboard_writer_that_fails_costs_the_events_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from llmchain_fl.report import tensorboard
    from llmchain_fl.run_dir import RunDir

    def fails(*_: object, **__: object) -> None:
        raise FULL

    monkeypatch.setattr(tensorboard, "TensorBoardLog", fails)
    tensorboard.write_events(RunDir.create(tmp_path / "run", SCENARIO))
    assert "no TensorBoard events" in caplog.text


def test_a_pipe_that_nobody_reads_any_more_is_no_error() -> None:
    script = "import sys; sys.argv = ['x', 'scenarios']; from llmchain_fl.cli.main import main; main()"
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -c "{script}" | true'], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.thorough
def test_a_run_whose_disk_fills_up_keeps_its_rounds_and_goes_on(here: Path, small: Any) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in small.rows(40))
    labels = json.dumps(small.labels).replace(":", " =")
    model = f'[model]\npath = "{small.bert}"\nmax_tokens = 16\nthreads = 1\n[adapter]\nrank = 1\nlast_layers = 1\n'
    text = SCENARIO.replace('labels = ["a", "b"]', f"labels = {labels}") + model
    prepare(here, Bad("", "", {"s.toml": text, "good.jsonl": rows}))
    run = [sys.executable, "-m", "llmchain_fl", "simulate"]
    limited = ["bash", "-c", 'ulimit -f 24; exec "$@"', "x", *run, "s.toml", "--out", "run"]  # 24 KiB: no report fits
    full = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert full.returncode == 2, full.stderr
    assert "Traceback" not in full.stderr + full.stdout
    assert full.stderr.count("error: ") == 1
    assert "File too large" in full.stderr
    assert "--resume run" in full.stderr
    assert (here / "run" / "error.log").read_text().startswith("Traceback")
    again = subprocess.run([*run, "--resume", "run"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert (here / "run" / "report.html").stat().st_size > 24 * 1024
