"""What a run has left behind, for use from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmchain_fl.api.own_parts import Parts, offered
from llmchain_fl.core.errors import RunError
from llmchain_fl.run_dir import RunDir

if TYPE_CHECKING:
    import pandas

    from llmchain_fl.api.classifier import Classifier
    from llmchain_fl.core.tasks.base import Task


@dataclass(frozen=True)
class Result:
    """A run.

    Attributes:
        run: its directory.
        stopped: why its privacy budget ended before its plan did; empty: it did not.
        plugins: own objects of the run, by which ``predict`` knows its task.
    """

    run: RunDir
    stopped: str = ""
    plugins: Parts = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.run.path

    @property
    def adapter(self) -> Path:
        """Folder of the adapter in service, in peft's format; its README.md says what plain peft serves of it."""
        return self.run.adapter

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.run.report

    @property
    def privacy(self) -> dict[str, Any]:
        """Unit, noise, delta, accountant, and what each site has spent; ``private`` is False without privacy."""
        return self.run.read_privacy()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every measurement, in the order made."""
        return self.run.rows()

    @property
    def metrics(self) -> pandas.DataFrame:
        """The same as a table: round, stage, scope, site, task, metric, value, n.

        Raises:
            RunError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            message = "a table of metrics needs pandas, which is not installed"
            raise RunError(message, remedy="pip install pandas, or use result.rows") from error
        return pandas.DataFrame(self.rows)

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The best answer to each text: a label, or a language model's answer.

        Raises:
            RunError, ModelError: there is no adapter yet, or its base cannot be loaded.
        """
        return [best[0][0] for best in self.predict_top(texts, 1)]

    def predict_top(self, texts: Sequence[str], top: int = 3) -> list[list[tuple[str, float]]]:
        """The ``top`` answers to each text with their probabilities."""
        from llmchain_fl.cli.trained import open_trained

        with offered(self.plugins):
            task: Task = open_trained(self.path)[1]
        return task.predict([texts] if isinstance(texts, str) else list(texts), top)

    def classifier(self) -> Classifier:
        """The adapter as transformers and peft alone serve it."""
        from llmchain_fl.api.classifier import Classifier

        return Classifier.from_folder(self.adapter)

    def _repr_html_(self) -> str:
        """A link to the report, for notebooks."""
        return f'<a href="{self.report.resolve().as_uri()}">report of {self.path.name}</a>'
