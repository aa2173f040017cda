"""Disk, memory, and who may read what on this machine.

==================================================  ==========================================
on this machine                                     line
==================================================  ==========================================
less than 200 MB free where ``state`` is            refusal
less than 2 GB                                      warning
less memory than a round is estimated to need       refusal
less of it free now                                 warning
``state`` cannot be written                         refusal
kit, keys or ``state`` open to others               refusal
==================================================  ==========================================
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from llmchain_fl.core.base_model import locate
from llmchain_fl.core.errors import ModelError
from llmchain_fl.onprem.files import open_to_others
from llmchain_fl.onprem.keys import NODE_KEY
from llmchain_fl.onprem.site_check.subject import Plan, Subject
from llmchain_fl.planning.findings import Findings

LEAST_MB, LITTLE_MB = 200, 2000
PROCESS_MB, TOKEN_BYTES, ROWS = 570, 121, 16
"""Of the estimate that a site makes before it loads a task (``client/trial.py``); rows of a private pass."""
CHECKPOINT = (".safetensors",)


def check_machine(subject: Subject, findings: Findings) -> None:
    """See the table of the module."""
    _check_disk(subject, findings)
    _check_memory(subject, findings)
    _check_modes(subject, findings)


def _check_disk(subject: Subject, findings: Findings) -> None:
    state = Path(os.path.abspath(subject.site.state))
    there = next(folder for folder in (state, *state.parents) if folder.is_dir())
    if not os.access(there, os.W_OK | os.X_OK):
        findings.fault("disk", f"{there} cannot be written", "give it to the user that runs the site")
    free = shutil.disk_usage(there).free // 2**20
    text = f"{free:,} MB free where state is"
    if free < LEAST_MB:
        findings.fault(
            "disk", f"{text}, {LEAST_MB} are needed", "make room: a round that cannot be sealed is paid for nothing"
        )
    elif free < LITTLE_MB:
        findings.warn("disk", text, "make room before a long run")
    else:
        findings.fact("disk", text)


def _check_memory(subject: Subject, findings: Findings) -> None:
    total, free = memory_mb()
    need = needed_mb(subject.plan) if subject.plan is not None else 0
    most = subject.site.limits.memory_mb or total
    text = f"{total:,} MB, {free:,} free" + (f"; a round needs some {need:,} by estimate" if need else "")
    remedy = "lower compute.rows or compute.micro_batch in the site file, or take a larger machine"
    if need > most:
        findings.fault("memory", f"{text}, the site allows {most:,}", remedy)
    elif need > free:
        findings.warn("memory", text, "end other programs on this machine, or " + remedy)
    else:
        findings.fact("memory", text)


def memory_mb() -> tuple[int, int]:
    """Memory of the machine and what of it is free; without ``/proc`` all of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    try:
        available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        available = None
    return total, int(available[1]) // 1024 if available else total


def needed_mb(plan: Plan) -> int:
    """The estimate of ``client/trial.py`` from the files of the base, without what is trained; 0: no base here."""
    try:
        folder = Path(locate(plan.config.model.path).path)
        shape = json.loads((folder / "config.json").read_bytes())
        weights = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in CHECKPOINT)
    except (OSError, ValueError, ModelError):
        return 0
    layers, width = (int(shape.get(key) or 0) for key in ("num_hidden_layers", "hidden_size"))
    tokens = ROWS * plan.config.model.max_tokens
    return PROCESS_MB + (weights + TOKEN_BYTES * layers * width * tokens) // 2**20


def _check_modes(subject: Subject, findings: Findings) -> None:
    kit = [subject.folder, *(subject.folder / NODE_KEY).parents[:1]] if subject.kit is not None else []
    secret = [subject.folder / NODE_KEY, subject.site.identity_file, Path(subject.site.state)]
    wide = [path for path in dict.fromkeys([*kit, *secret]) if open_to_others(path)]
    for path in wide:
        findings.fault("modes", f"others on this machine may enter or read {path}", f"chmod -R go= '{path}'")
    if not wide:
        findings.fact("modes", "kit, keys and state are their owner's alone")
