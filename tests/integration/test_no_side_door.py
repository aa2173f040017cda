"""Fifty planted strings: none of them in anything that leaves a site or that the server stores."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from flwr.common.serde import message_to_proto

from client.app import make_app
from client.site import Site, SiteData, SiteLimits
from llmchain_fl.config.write import to_toml
from llmchain_fl.core.errors import RunError
from llmchain_fl.core.tasks.classification import Classification
from llmchain_fl.progress import Logged
from llmchain_fl.run_dir import RunDir
from server.app import run_all
from simulations.grid import InProcessGrid

CANARIES = [f"Canary{number:02d}Zz{number * 7919 % 10007:05d}" for number in range(50)]
"""0 to 32 stand in records, 33 to 44 in what goes wrong with one, 45 to 49 in names of folders and files."""
FOLDER = CANARIES[45:50]


class Wiretap(InProcessGrid):
    """Keeps the bytes of every reply."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.heard: list[bytes] = []

    def _deliver(self, message: Message, number: str) -> Message:
        reply = super()._deliver(message, number)
        self.heard.append(message_to_proto(reply).SerializeToString())
        return reply


def found_in(text: bytes, canaries: Sequence[str] = CANARIES) -> list[str]:
    """Canaries that stand in ``text`` in any case, plainly, backwards, in UTF-16 or in base64."""
    text = text.lower()

    def spellings(canary: str) -> Iterator[bytes]:
        plain = canary.encode()
        yield from (plain, plain[::-1], canary.encode("utf-16-le"))
        for shift in range(3):  # base64 of the canary at each place in its groups of three
            yield base64.b64encode(b"x" * shift + plain)[4:-4]

    return [canary for canary in canaries if any(spelling.lower() in text for spelling in spellings(canary))]


def write_site(folder: Path, rows: list[dict[str, str]], *, scores: str = "noised") -> Site:
    """A site whose folder and file names carry canaries, with ``rows`` for both stages."""
    home = folder / "-".join(FOLDER)
    home.mkdir(parents=True)
    for stage in ("first", "second"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (home / f"{FOLDER[0]}-{stage}.jsonl").write_text(text)
        (home / f"{FOLDER[1]}-{stage}.jsonl").write_text(text.replace('"person": "p', '"person": "h'))
    data = SiteData(
        train=str(home / f"{FOLDER[0]}-{{stage}}.jsonl"), held_out=str(home / f"{FOLDER[1]}-{{stage}}.jsonl")
    )
    limits = SiteLimits(epsilon=60.0, scores=scores)  # type: ignore[arg-type]
    return Site(name="north", state=str(home / f"state-{FOLDER[2]}"), data=data, limits=limits)


def rows_with(canaries: Sequence[str], count: int = 40) -> list[dict[str, str]]:
    """Records whose texts, person ids and further columns hold the canaries in turn."""
    names = ["lost_card", "transfer", "rates", "other"]
    return [
        {
            "text": f"lost card {canaries[i % len(canaries)]}",
            "label": names[i % 4],
            "person": f"p{i // 2} {canaries[(i + 3) % len(canaries)]}",
            "diagnosis": canaries[(i + 5) % len(canaries)],
        }
        for i in range(count)
    ]


def append(site: Site, text: str) -> None:
    with Path(site.data.train.replace("{stage}", "first")).open("a") as file:
        file.write(text)


def broken_line(site: Site, canary: str) -> None:
    append(site, '{"text": "' + canary)


def unknown_label(site: Site, canary: str) -> None:
    line = json.dumps({"text": "x", "label": canary, "person": "p1"})
    append(site, line + "\n")


def missing_column(site: Site, canary: str) -> None:
    file = Path(site.data.train.replace("{stage}", "first"))
    file.write_text(file.read_text().replace('"person"', json.dumps(canary)))


def missing_file(site: Site, canary: str) -> None:
    file = Path(site.data.train.replace("{stage}", "first"))
    file.rename(file.with_name(canary))


def not_text(site: Site, canary: str) -> None:
    append(site, json.dumps({"text": [canary]}) + "\n")


SPOILT: dict[str, Callable[[Site, str], None]] = {
    "a broken line": broken_line,
    "a label that is not in the list": unknown_label,
    "a missing column": missing_column,
    "a missing file": missing_file,
    "a cell that is no text": not_text,
}


def talking(kind: str, canary: str) -> Callable[..., Any]:
    """An ``encode`` that behaves as a careless library does with a record in its hand."""
    real = Classification.encode

    def encode(self: Classification, rows: Any) -> Any:
        if any("canary" in str(row).lower() for row in rows):
            if kind == "warnings":
                warnings.warn(f"odd record: {canary}", UserWarning, stacklevel=1)
            elif kind == "a library's log":
                logging.getLogger("some.library").error("odd record: %s", canary)
            elif kind == "print":
                sys.stderr.write(f"odd record: {canary}\n")
            elif kind == "an exception with a cause":
                try:
                    raise KeyError(canary)
                except KeyError as error:
                    raise RuntimeError(f"cannot encode {canary}") from error
            else:
                raise {"ValueError": ValueError, "OSError": OSError, "MemoryError": MemoryError}[kind](canary)
        return real(self, rows)

    return encode


TALKS = ["warnings", "a library's log", "print", "an exception with a cause", "ValueError", "OSError", "MemoryError"]


def play(tiny: Any, folder: Path, site: Site) -> tuple[bytes, bytes]:
    """A private run over ``site`` alone; (all bytes that left it, all bytes that the server wrote or said)."""
    run = RunDir.create(folder / "run", to_toml(config_of(tiny)))
    grid = Wiretap(make_app(lambda context: site), ["north"])
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    log = logging.getLogger("llmchain_fl")
    before = log.level, log.propagate
    site_log = logging.getLogger("llmchain_fl.client")
    site_log.propagate = False  # the site's own log stays at the site
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        run_all(config_of(tiny), run, grid, Logged())
    except RunError as error:
        said.write(str(error))
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
        site_log.propagate = True
    stored = b"".join(path.read_bytes() for path in sorted((folder / "run").rglob("*")) if path.is_file())
    assert grid.heard
    return b"".join(grid.heard), stored + said.getvalue().encode()


def config_of(tiny: Any) -> Any:
    privacy = {"enabled": True, "noise_multiplier": 1.0, "delta": 1e-5}
    return tiny.config(
        sites={"count": 1, "held_out": 0.2, "wait_seconds": 2.0}, privacy=privacy, data={"train": "at-the-sites"}
    )


def test_the_detector_finds_what_it_looks_for() -> None:
    canary = CANARIES[7]
    for text in (canary, canary.upper(), canary[::-1], base64.b64encode(f"ab{canary}".encode()).decode()):
        assert found_in(f"..{text}..".encode()) == [canary]
    assert found_in(canary.encode("utf-16-le")) == [canary]
    assert found_in(b"Canary") == []


@pytest.mark.timeout(300)
def test_nothing_of_records_ids_or_paths_leaves_in_a_run_that_works(tiny: Any, tmp_path: Path) -> None:
    site = write_site(tmp_path / "disk", rows_with(CANARIES[:33]))
    left, stored = play(tiny, tmp_path, site)
    assert found_in(left) == []
    assert found_in(stored) == []
    assert b"scores" in left  # noised ones went out too
    planted = b"".join(path.read_bytes() for path in (tmp_path / "disk").rglob("*.jsonl"))
    assert found_in(planted, CANARIES[:33]) == CANARIES[:33]


@pytest.mark.parametrize(("kind", "canary"), zip(SPOILT, CANARIES[33:38], strict=True))
@pytest.mark.part(2)
def test_nothing_of_a_bad_record_leaves(tiny: Any, tmp_path: Path, kind: str, canary: str) -> None:
    site = write_site(tmp_path / "disk", rows_with(CANARIES[:33]))
    SPOILT[kind](site, canary)
    left, stored = play(tiny, tmp_path, site)
    assert found_in(left + stored) == []
    assert (b"refused" in left) == (kind == "a missing file")  # no record decides about a refusal


@pytest.mark.parametrize(("kind", "canary"), zip(TALKS, CANARIES[38:45], strict=True))
@pytest.mark.part(2)
def test_nothing_that_a_library_says_about_a_record_leaves(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, canary: str
) -> None:
    monkeypatch.setattr(Classification, "encode", talking(kind, canary))
    site = write_site(tmp_path / "disk", rows_with(CANARIES[:33]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        left, stored = play(tiny, tmp_path, site)
    assert found_in(left + stored) == []


@pytest.mark.parametrize(("where", "code"), [("the ledger", b"privacy"), ("the disk", b"error")])
def test_a_site_in_trouble_sends_one_code_word_and_nothing_else(
    tiny: Any, tmp_path: Path, where: str, code: bytes
) -> None:
    """On a disk that takes no line of the audit log a site does not even say its name."""
    site = write_site(tmp_path / "disk", rows_with(CANARIES[:33]))
    if where == "the ledger":
        site.ledger_folder.mkdir(parents=True)
        (site.ledger_folder / "events.jsonl").write_text(CANARIES[0] + "\n")
    else:
        Path(site.state).write_text(CANARIES[0])  # a file where the folder should be
    left, stored = play(tiny, tmp_path, site)
    assert found_in(left + stored) == []
    assert code in left
    assert (b"north" in left) == (where == "the ledger")
