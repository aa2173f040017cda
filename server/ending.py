"""How a run ends, and what it says first.

==============================================  =====================================================  ==========
the run                                         what is left                                           raises
==============================================  =====================================================  ==========
went to its planned end                         adapter, score kept for the end, privacy               nothing
nobody can pay for what is still to come        the same; "stopped after n of m rounds" stands first   RunStopped
no round made new arrays                        no adapter; privacy, and why                           RunError
a round that cannot go on (any error of ours)   the adapter of the last good round, privacy, and why   the error
was stopped before, and is asked to go on       the same as then                                       RunStopped
==============================================  =====================================================  ==========

Why a run ended stands in ``metrics.jsonl`` (a row ``stopped``), in ``privacy.json`` (``stopped``) and, out of these, in
the report and in the terminal. Where a run can go on, the row is dropped by the next round.
"""

from __future__ import annotations

from llmchain_fl.core.errors import RunError
from llmchain_fl.progress import Progress
from llmchain_fl.run_dir import RunDir
from llmchain_fl.run_ends import RunStopped
from server.privacy_book import PrivacyBook
from server.recorder import Recorder
from server.schedule import ScheduledRound
from server.scoring import Scorer
from server.state import RunState
from server.strategy import FederatedLora

NOTHING = "no round had updates enough that could be summed"


class Ending:
    """Writes the last things of a run; the row of the table that applies."""

    def __init__(
        self,
        strategy: FederatedLora,
        scorer: Scorer,
        book: PrivacyBook,
        recorder: Recorder,
        run: RunDir,
        state: RunState,
        progress: Progress,
    ) -> None:
        self._strategy, self._scorer, self._book, self._recorder = strategy, scorer, book, recorder
        self._run, self._state, self._progress = run, state, progress

    def finish(self, *, again: bool) -> None:
        """The run has come to its end, by plan or because nobody can pay; ``again``: it had done so before.

        Raises:
            RunError: nothing was trained.
            RunStopped: it ended before its plan did.
        """
        state, total = self._state, len(self._strategy.rounds)
        if not state.summed:
            raise self._untrained(total)
        planned = self._strategy.rounds[max(state.round, 1)]
        self._recorder.adapter(self._run.adapter, planned)
        if self._scorer.only_at_the_end:
            self._final(planned)
        self._write_why(state.round, state.stopped)
        if not state.stopped:
            self._progress.finished(f"{state.round} rounds done")
            return
        message = f"the run was stopped after {state.round} of {total} rounds: {state.stopped}"
        self._progress.finished(message)
        if again:
            message = f"there is nothing to go on with: {message}"
        more = "llmchain-fl extend goes on with a larger privacy.epsilon"
        raise RunStopped(message, remedy=f"what it learned is kept in {self._run.adapter}; {more}")

    def _final(self, planned: ScheduledRound) -> None:
        try:
            self._recorder.final(planned)
        except RunError as error:
            self._write_why(self._state.round, error.what)
            raise

    def _untrained(self, total: int) -> RunError:
        state = self._state
        why = state.stopped or NOTHING
        self._write_why(state.round, f"nothing was trained: {why}")
        return RunError(
            f"nothing was trained in {state.round} of {total} rounds: {why}; no adapter was written",
            remedy="raise privacy.epsilon, or plan fewer or cheaper rounds (llmchain-fl privacy plan); "
            "where sites refused, their logs say why",
        )

    def broken(self, why: str) -> None:
        """A round cannot go on; the state holds the arrays of the last good one."""
        state = self._state
        if state.summed:
            self._recorder.adapter(self._run.adapter, self._strategy.rounds[max(state.round, 1)])
        self._write_why(state.round + 1, why)

    def _write_why(self, number: int, why: str) -> None:
        stopped = {"stopped": why} if why else {}
        self._run.write_privacy(self._book.as_json(self._state.nodes) | stopped)
        if why:
            self._recorder.ended(number, why, len(self._strategy.rounds))
