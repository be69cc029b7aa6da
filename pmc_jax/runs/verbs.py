"""The verbs of the command line: one table of what each does, which flags it reads, and an example."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pmc_jax import config as settings
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError
from pmc_jax.runs.flags import FLAGS, changed_settings, given_settings, path
from pmc_jax.settings.paths import expand


class Verb(NamedTuple):
    """One verb of the command line.

    Attributes:
        meaning: what it does, in a few words.
        run: the function; it gets the words that are no flags.
        example: a command to start from.
        sections: the sections of the settings that it reads.
        flags: the flags that it reads, beside --config and those of several hosts.
        words: what its words are; empty = it takes none.
        preset: the preset when --config is not given; empty = the defaults.
    """

    meaning: str
    run: Callable[[list[str]], None]
    example: str
    sections: tuple[str, ...] = ()
    flags: tuple[str, ...] = ("workdir",)
    words: str = ""
    preset: str = ""


def keep_compiled_programs() -> None:
    """Keep compiled programs across runs: the second start of a run compiles nothing."""
    import jax

    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/pmc_jax/compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


# What changes the programs that JAX makes, or their numbers.
ENVIRONMENT = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION")


def told(verb: str) -> dict[str, Any]:
    """What this process was told and runs with: the same on all processes of a run."""
    from pmc_jax.tracking.workdir import versions

    flags = {
        f"--{name}": FLAGS[name].value for name in ("output", "round", "retain_log") if FLAGS[name].value is not None
    }
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    started = {"verb": verb, "--workdir": os.path.abspath(expand(FLAGS.workdir))}
    return started | settings.to_flat(FLAGS.config) | flags | versions() | environment


@contextlib.contextmanager
def devices(verb: str) -> Iterator[None]:
    """The devices of this process and of those that it joins, for a run in --workdir."""
    if not FLAGS.workdir:
        raise UserError("--workdir=DIR is missing: the folder where the run keeps everything")
    with multihost.join(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id, FLAGS.peer_timeout, told(verb)):
        keep_compiled_programs()
        yield


def start_demo(words: list[str]) -> None:
    """Everything once, on a small model."""
    FLAGS.workdir = FLAGS.workdir or "runs/demo"
    with devices("demo"):
        from pmc_jax.runs.demo import run_demo

        run_demo(FLAGS.config, FLAGS.workdir)


def start_finetune(words: list[str]) -> None:
    """Train on question-answer rows."""
    with devices("finetune"):
        from pmc_jax.runs.finetune import run_finetune

        run_finetune(FLAGS.config, FLAGS.workdir, FLAGS.profile or "")


def start_unlearn(words: list[str]) -> None:
    """Unlearn in a workdir."""
    with devices("unlearn"):
        from pmc_jax.runs.unlearn import unlearn

        unlearn(FLAGS.config, FLAGS.workdir, FLAGS.profile or "")


def start_compare(words: list[str]) -> None:
    """Run a comparison, or this task's share of it, and make its table."""
    with devices("compare"):
        from pmc_jax.runs.compare import run_compare, share_of

        run_compare(FLAGS.config, FLAGS.workdir, share_of(FLAGS.task, FLAGS.tasks), FLAGS.table)


def start_ask(words: list[str]) -> None:
    """Put questions to the models of a workdir; on this host alone."""
    if not words:
        raise UserError("ask: name a workdir, a checkpoint's folder or a hub id: pmc-jax ask WORKDIR [QUESTION ...]")
    words = [path(words[0]), *words[1:]]
    keep_compiled_programs()
    from pmc_jax.runs.ask import ask

    changed = changed_settings()
    ask(words[0], words[1:], FLAGS.samples, FLAGS.config, changed, FLAGS.json)


def start_evaluate(words: list[str]) -> None:
    """Measure a checkpoint, or recompute an official log."""
    if FLAGS.log:
        from pmc_jax.runs.evaluate import recompute_log

        recompute_log(FLAGS.log, FLAGS.retain_log)
        return
    with devices("evaluate"):
        from pmc_jax.runs.evaluate import run_evaluate

        run_evaluate(FLAGS.config, FLAGS.workdir, FLAGS.retain_log)


def start_report(words: list[str]) -> None:
    """Write the page and say where; needs no device."""
    from pmc_jax.report import page

    workdirs = words or ([FLAGS.workdir] if FLAGS.workdir else [])
    if not workdirs:
        raise UserError("report: name the workdir of a run, or several: pmc-jax report WORKDIR [WORKDIR ...]")
    print(f"report: {page.write([path(workdir) for workdir in workdirs], FLAGS.output, FLAGS.redact)}")


def start_export(words: list[str]) -> None:
    """Write a saved round as a checkpoint."""
    with devices("export"):
        from pmc_jax.runs.export import run_export

        given = given_settings("export", ("model.path", "train.interpolation", *MESH))
        run_export(FLAGS.workdir, FLAGS.output, FLAGS.round, given)


def start_plan(words: list[str]) -> None:
    """Print what a run would take; needs no workdir, no weights, and no device."""
    import json

    from pmc_jax.plan import run, show, topology
    from pmc_jax.plan.abstract import Assumed

    target = topology.parse_topology(FLAGS.topology, FLAGS.slices)
    assumed = Assumed(FLAGS.questions, FLAGS.prefix_tokens, FLAGS.prompt_tokens, FLAGS.answer_tokens)
    compiling = {None: "none" if target.is_gpu else "whole", "depths": "whole"}.get(FLAGS.compile, FLAGS.compile)
    numbers = run.plan(FLAGS.config, target, assumed, compiling)
    print(json.dumps(numbers, indent=1)) if FLAGS.json else show.show(numbers)


MESH = ("mesh.data", "mesh.model")
MODEL, TRAINING = ("model", "data", "prompt", "mesh", "seed"), ("train", "lora", "rounds")
VERBS = {
    "demo": Verb(
        "a small model learns fictitious authors and forgets a tenth of them; no network, minutes",
        start_demo,
        "pmc-jax demo",
        ("seed",),
        preset="demo",
    ),
    "finetune": Verb(
        "train a checkpoint, or a new model, on question-answer rows",
        start_finetune,
        "pmc-jax finetune --config=tofu_llama --config.model.path=FOLDER_OR_HUB_ID --workdir=runs/taught",
        MODEL + TRAINING,
        ("workdir", "profile"),
    ),
    "unlearn": Verb(
        "make a checkpoint forget questions, by partial model collapse or a rival method",
        start_unlearn,
        "pmc-jax unlearn --config=tofu_llama --config.model.path=FOLDER_OR_HUB_ID --workdir=runs/first",
        (*MODEL, "method", "method_options", "pmc", "sample", *TRAINING, "evaluate"),
        ("workdir", "profile"),
    ),
    "compare": Verb(
        "methods x seeds x a small grid from one checkpoint, in one table with figures",
        start_compare,
        "pmc-jax compare --config=compare_tofu_mini --config.model.path=FOLDER --config.data.path=FOLDER "
        "--workdir=runs/compared",
        ("compare", *MODEL, "pmc", "sample", *TRAINING, "evaluate"),
        ("workdir", "task", "tasks", "table"),
    ),
    "ask": Verb(
        "put questions to the original and the unlearned model; without a question, from the terminal or a pipe",
        start_ask,
        'pmc-jax ask runs/first "Who is the author of Dracula?"',
        ("prompt", "sample", "model", "mesh", "seed"),
        ("samples", "json"),
        'WORKDIR_OR_CHECKPOINT ["QUESTION" ...]',
    ),
    "evaluate": Verb(
        "benchmarks, leakage, relearning, side effects of a checkpoint; or the metrics of an official log",
        start_evaluate,
        "pmc-jax evaluate --config.model.path=runs/first/hf --workdir=runs/first-evaluated",
        (*MODEL, "evaluate", "sample", "train"),
        ("workdir", "log", "retain_log"),
    ),
    "report": Verb(
        "an HTML page of one run, or of several side by side",
        start_report,
        "pmc-jax report runs/first runs/second --output=both.html",
        (),
        ("workdir", "output", "redact"),
        "WORKDIR [WORKDIR ...]",
    ),
    "export": Verb(
        "write a saved round of a run as a Hugging Face checkpoint",
        start_export,
        "pmc-jax export --workdir=runs/first --round=3 --output=FOLDER",
        (),
        ("workdir", "output", "round"),
    ),
    "plan": Verb(
        "memory and time of a run on TPUs, compiled without one, or on GPUs, estimated",
        start_plan,
        "pmc-jax plan --config=tofu_llama --config.model.path=Llama-3.2-3B --topology=v5e:2x4",
        ("model", "pmc", "sample", "train", "lora", "mesh"),
        (
            *("topology", "slices", "compile", "json"),
            *("questions", "prefix_tokens", "prompt_tokens", "answer_tokens"),
        ),
    ),
}
