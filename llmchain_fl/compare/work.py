"""Many cells in a few processes, each with one thread; a process that dies loses its own cell only.

A worker is forked once the base of the first cell is in memory: all have the same pages, and own what they write. It
keeps its base from cell to cell, hears nothing of Ctrl-C (the parent ends it), and ends by itself when the parent is
gone, so that nobody is left behind who writes in the same folder.

| what happens in a cell | outcome |
|---|---|
| it is played | as ``play`` says |
| an error | failed: the error in one line; the trace in ``crash.txt`` of the cell's folder |
| the process is killed, out of memory, or crashes | failed, with its exit code; a new process takes the next cell |
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Protocol

import torch
from threadpoolctl import threadpool_limits

from llmchain_fl.compare.outcome import Outcome, missed
from llmchain_fl.compare.play import Job, Tell

Play = Callable[[Job, Tell], Outcome]
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PATIENCE = 5.0


class Watch(Protocol):
    """Whoever looks on."""

    def began(self, job: Job) -> None: ...

    def moved(self, job: Job, done: int, total: int) -> None: ...

    def ended(self, job: Job, outcome: Outcome) -> None: ...


Runner = Callable[[Sequence[Job], Play, Watch], list[Outcome]]


def one_by_one(jobs: Sequence[Job], play: Play, watch: Watch) -> list[Outcome]:
    """All of them in this process, in turn."""
    outcomes = []
    for job in jobs:
        watch.began(job)
        outcomes.append(_safely(job, play, functools.partial(watch.moved, job)))
        watch.ended(job, outcomes[-1])
    return outcomes


def in_processes(count: int, logs: Path, warm: Callable[[], None]) -> Runner:
    """A runner with ``count`` worker processes, whose words go to ``logs``.

    ``warm``: called before the first of them is forked, to load what all of them will need.
    """

    def run(jobs: Sequence[Job], play: Play, watch: Watch) -> list[Outcome]:
        waiting, outcomes = list(reversed(jobs)), list[Outcome]()
        with contextlib.ExitStack() as ending, _one_thread():
            if jobs:
                warm()
            workers = [_Worker(play, logs / f"worker-{n + 1}.log") for n in range(min(count, len(jobs)))]
            for worker in workers:
                ending.callback(worker.end)
            while waiting or any(worker.job for worker in workers):
                for worker in workers:
                    if worker.job is None and waiting:
                        watch.began(worker.begin(waiting.pop()))
                outcomes += [outcome for worker in _ready(workers) for outcome in worker.hear(watch)]
        return outcomes

    return run


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    """The busy workers that have said something or have died; waits for one."""
    by_handle: dict[Any, _Worker] = {handle: each for each in workers if each.job for handle in each.handles}
    return list(dict.fromkeys(by_handle[handle] for handle in wait(list(by_handle))))


class _Worker:
    """The parent's side of one process."""

    def __init__(self, play: Play, log: Path) -> None:
        self._play, self._log = play, log
        self.job: Job | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process: ForkProcess = context.Process(target=_serve, args=(theirs, self._play, self._log), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def handles(self) -> list[Any]:
        """What to wait on: its messages, and its end."""
        return [self._connection, self._process.sentinel]

    def begin(self, job: Job) -> Job:
        """Hand a cell over; a process that died meanwhile is replaced."""
        if not self._process.is_alive():
            self.end()
            self._start()
        self.job = job
        with contextlib.suppress(OSError):  # it died just now: seen when it is heard
            self._connection.send(job)
        return job

    def hear(self, watch: Watch) -> Iterator[Outcome]:
        """What it has said; at most one outcome."""
        job = self.job
        if job is None:
            return
        try:
            said = self._connection.recv() if self._connection.poll() else None
        except (EOFError, OSError):
            said = None
        if isinstance(said, Outcome):
            yield self._ended(job, said, watch)
        elif said is not None:
            watch.moved(job, *said)
        elif not self._process.is_alive():
            why = f"its process ended with exit code {self._process.exitcode}; see {self._log}"
            yield self._ended(job, missed(job.cell, "failed", why), watch)

    def _ended(self, job: Job, outcome: Outcome, watch: Watch) -> Outcome:
        self.job = None
        watch.ended(job, outcome)
        return outcome

    def end(self) -> None:
        """Ends the process, whatever it does; a run that is cut off goes on from its last finished round."""
        self._connection.close()
        self._process.terminate()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(connection: Connection, play: Play, log: Path) -> None:
    """The worker's side: cells in, outcomes out, until the connection or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _speak_into(log)
    torch.set_num_threads(1)
    threadpool_limits(1)
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            connection.send(_safely(job, play, lambda done, total: connection.send((done, total))))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _speak_into(log: Path) -> None:
    """Standard output and error, those of libraries too, go to a file and not into the parent's display."""
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    # the parent's display may stand in front of its own
    sys.stdout = sys.stderr = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115


def _safely(job: Job, play: Play, tell: Tell) -> Outcome:
    try:
        return play(job, tell)
    except Exception as error:
        with contextlib.suppress(OSError):
            job.folder.mkdir(parents=True, exist_ok=True)
            (job.folder / "crash.txt").write_text(traceback.format_exc(), encoding="utf-8")
        said = " ".join(str(error).split())
        return missed(job.cell, "failed", f"{type(error).__name__}: {said}" if said else type(error).__name__)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started meanwhile use one thread each, in libraries too that they load later."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
