"""The benchmarks of `pmc-jax evaluate`: one file each. A new one is a file and a row of the table."""

from pmc_jax.errors import UserError
from pmc_jax.evaluate.benchmark import Benchmark
from pmc_jax.evaluate.benchmarks.ability import ABILITY
from pmc_jax.evaluate.benchmarks.choices import ARC, MMLU, WMDP
from pmc_jax.evaluate.benchmarks.harness import HARNESS
from pmc_jax.evaluate.benchmarks.lume import LUME
from pmc_jax.evaluate.benchmarks.muse import MUSE
from pmc_jax.evaluate.benchmarks.quality import QUALITY
from pmc_jax.evaluate.benchmarks.robustness import ROBUSTNESS
from pmc_jax.evaluate.benchmarks.rwku import RWKU
from pmc_jax.evaluate.benchmarks.tofu import TOFU
from pmc_jax.registry import resolve
from pmc_jax.settings.setting import names_in

TABLE = (QUALITY, TOFU, LUME, MUSE, RWKU, WMDP, MMLU, ARC, HARNESS, ROBUSTNESS, ABILITY)
LAST = ("robustness", "ability")
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in TABLE}


def chosen(names: str) -> tuple[Benchmark, ...]:
    """The benchmarks of an evaluation: `quality` first and `LAST` last always, the named ones between them.

    Args:
        names: the setting evaluate.benchmarks, names joined by commas: of the table, or module:attribute.

    Returns:
        Each benchmark once.

    Raises:
        UserError: a name is not known, stands for something that is no Benchmark, or for one of another's name.
    """
    wanted = names_in(names)
    distinct = dict.fromkeys(["quality", *(name for name in wanted if name not in LAST), *LAST])
    benchmarks = tuple(resolve_benchmark(name) for name in distinct)
    names_taken = [benchmark.name for benchmark in benchmarks]
    twice = next((name for name in names_taken if names_taken.count(name) > 1), None)
    if twice:
        raise UserError(f"evaluate.benchmarks={names!r}: two benchmarks are called {twice!r}; rename one")
    return benchmarks


def resolve_benchmark(name: str) -> Benchmark:
    """One benchmark of the setting."""
    benchmark = resolve("evaluate.benchmarks", name, BENCHMARKS)
    if not isinstance(benchmark, Benchmark):
        raise UserError(
            f"evaluate.benchmarks={name!r}: is a {type(benchmark).__name__}, not a pmc_jax.evaluate.benchmark.Benchmark"
        )
    return benchmark
