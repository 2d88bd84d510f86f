"""Tasks of public benchmarks: what is predicted, and which crystals judge. The sources have them by name."""

from dataclasses import dataclass

from cgcnn_jax.scaling import Task as Kind


@dataclass(frozen=True)
class Task:
    """One property of one benchmark.

    Attributes:
      name: As `data.task` and experiments.fetch call it.
      column: The property's name in the official files.
      target: Its name here, which is that of JSON lines and of the property configurations.
      unit: Its unit.
      size: Crystals that the benchmark has, 0 if that is not known.
      kind: What is learned; None for a benchmark of one's own.
      suite: The benchmark it belongs to.
      source: `data.source` that reads it.
      num_folds: Parts that take turns as the test split; 1 where there is one published split.
      n_test: Crystals of the published test split, where its size is known.
    """

    name: str
    column: str
    target: str
    unit: str
    size: int
    kind: Kind | None = "regression"
    suite: str = ""
    source: str = ""
    num_folds: int = 1
    n_test: int | None = None

    @property
    def metric(self) -> str:
        """The score that ranks: mae, or rocauc in classification."""
        return "rocauc" if self.kind == "classification" else "mae"

    @property
    def names(self) -> tuple[str, ...]:
        """Under which its crystals have the property."""
        return self.target, self.column

    def test_size(self, fold: int) -> int | None:
        """Crystals that the benchmark has in a test fold; None if that is not known."""
        if self.num_folds == 1:
            return self.n_test
        # The first folds take what is left over, in KFold and in StratifiedKFold.
        return self.size // self.num_folds + (fold < self.size % self.num_folds)
