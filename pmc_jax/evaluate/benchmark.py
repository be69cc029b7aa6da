"""A benchmark: its data, and parts that measure models on it. `benchmarks/` holds one file for each.

    load -> measurements (ask one model; minutes; kept on disk) -> result of a part (JSON) -> its lines

A measurement that several parts need is made once. `measure.py` runs all of this.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from pmc_jax import config as settings
from pmc_jax.data.questions import Rows
from pmc_jax.distributed import multihost
from pmc_jax.evaluate.lines import View
from pmc_jax.evaluate.scoring import Scores
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.files import read_json
from pmc_jax.tracking.workdir import Workdir

# The models that a measurement may ask, by the setting that holds the checkpoint. One is in memory at a time.
MODEL, RETAIN_MODEL, ORIGINAL_MODEL = MODELS = ("model.path", "evaluate.retain_model", "evaluate.original_model")
NO_MODEL = {
    RETAIN_MODEL: "no retain model was given (evaluate.retain_model)",
    ORIGINAL_MODEL: "no model from before unlearning was given (evaluate.original_model)",
}


class Setup(NamedTuple):
    """What a measurement or a part is given.

    Attributes:
        work: the folder of the evaluation.
        config: all settings.
        data: {benchmark: {set: rows}}, what the benchmarks have loaded.
        sampler: greedy sampler of the model that is asked; None for parts, which ask no model.
        scores: () -> {"SET_Q_A_Prob": [row][answer] -> TokenScores} of the measurement's own `texts`; see
            `scoring.score_sets`.
        retain_log: the official log of a retain model, in the place of that model, or None.
    """

    work: Workdir
    config: ConfigDict
    data: dict[str, dict[str, Rows]]
    sampler: Sampler | None = None
    scores: Callable[[], Scores] | None = None
    retain_log: dict[str, Any] | None = None

    def finding(self, measurement: str) -> Any:
        """What a measurement has found; {"reason": ...} where it was not made."""
        return read_finished(self.work, measurement)["found"]


def never(setup: Setup) -> None:
    """A part or measurement that is always there."""


def no_texts(setup: Setup) -> dict[str, Rows]:
    """A measurement that needs no likelihoods."""
    return {}


class Measurement(NamedTuple):
    """What is asked of one model. Its finding is kept in parts/NAME.json.

    Attributes:
        name: different from that of all other measurements.
        run: Setup -> finding, JSON.
        model: the setting of the checkpoint that is asked, one of `MODELS`.
        absent: Setup -> why it cannot be made, or None.
        texts: Setup -> sets of rows whose answers' likelihoods it needs. The texts of all measurements of a model are
            scored in one pass.
    """

    name: str
    run: Callable[[Setup], Any]
    model: str = MODEL
    absent: Callable[[Setup], str | None] = never
    texts: Callable[[Setup], dict[str, Rows]] = no_texts

    def reason(self, setup: Setup) -> str | None:
        """Why it is not made; None where it is."""
        if not settings.lookup(setup.config, self.model):
            return NO_MODEL[self.model]
        return self.absent(setup)


class Part(NamedTuple):
    """One result of a benchmark.

    Attributes:
        key: its key in result.json: the benchmark's name, or for further parts NAME_something.
        view: how the result is shown.
        measurements: what it needs, in the order in which it is measured.
        result: Setup -> a dict, JSON; None: what its first measurement has found.
        absent: Setup -> why there is no result, or None.
    """

    key: str
    view: View
    measurements: tuple[Measurement, ...]
    result: Callable[[Setup], dict[str, Any]] | None = None
    absent: Callable[[Setup], str | None] = never


class Benchmark(NamedTuple):
    """A benchmark, an entry of `benchmarks.BENCHMARKS` or a user's own.

    Attributes:
        name: its name in settings and messages, and its key in `Setup.data`.
        load: settings -> {set: rows}. A changed row makes another evaluation of it.
        parts: its results, in the order in which they are shown.
    """

    name: str
    load: Callable[[ConfigDict], dict[str, Rows]]
    parts: tuple[Part, ...]


def read_finished(work: Workdir, measurement: str) -> dict[str, Any] | None:
    """{"found", "seconds"} of a measurement that was made, by this or an earlier start; else None."""
    return multihost.broadcast_from_primary(lambda: read_json(work.path / "parts" / f"{measurement}.json"))
