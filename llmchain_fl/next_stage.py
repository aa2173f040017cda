"""The end of a stage, announced by the operator: the file ``next-stage`` in the run's directory.

``echo cards-2026-q1 >> runs/x/next-stage`` says that this stage is over. The server looks after each round. A line
names the stage it ends, so it can be written twice, before a crash or ahead of time, and still ends that stage only.

Why a person says so and no program finds out: a change of stage that is detected in records (a drift test, a rising
loss) is a release about these records, in when it comes, and would have to be noised and paid for like any other. The
calendar and the operator know nothing that is private, so their word costs no epsilon.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from llmchain_fl.core.errors import ConfigError
from llmchain_fl.core.words import nearest
from llmchain_fl.run_dir import RunDir

log = logging.getLogger("llmchain_fl")
FILE = "next-stage"


def announce(run: RunDir, stage: str, stages: Sequence[str]) -> None:
    """Say that ``stage`` is over. Twice is as good as once.

    Raises:
        ConfigError: the stream has no such stage.
    """
    if stage not in stages:
        raise ConfigError([f'there is no stage "{stage}"{nearest(stage, stages)}'], remedy="nothing was announced")
    if stage not in _lines(run):
        with (run.path / FILE).open("a", encoding="utf-8") as file:
            file.write(f"\n{stage}\n")  # a line of its own, also after one without an end


def announced(run: RunDir, stage: str, stages: Sequence[str]) -> bool:
    """Whether the operator has said that ``stage`` is over. Asked after each round of it.

    ===================================  ==========================================================
    the file                             result
    ===================================  ==========================================================
    is not there, or empty               False
    names the stage, in any line         True
    names another stage                  False; that one ends after its first round, if it is to come
    names a stage that does not exist    False, and a warning with the nearest name
    ===================================  ==========================================================
    """
    lines = _lines(run)
    for name in lines:
        if name not in stages:
            log.warning('%s: there is no stage "%s"%s', run.path / FILE, name, nearest(name, stages))
    return stage in lines


def _lines(run: RunDir) -> list[str]:
    """Names without blanks around them; nothing where there is no file."""
    try:
        text = (run.path / FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]
