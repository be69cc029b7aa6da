"""The verbs of the command line: one table of what each does, which flags it reads, and an example."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from pmc_jax import config as settings
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError
from pmc_jax.settings.paths import expand

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file(
    "config", None, "Settings to start from: a preset's name, such as tofu_llama, or the path of a file."
)
flags.DEFINE_string("workdir", None, "Folder of the run; made when absent. A stopped run in it goes on.")
flags.DEFINE_string(
    "output", None, "What to write: the folder of `export` (default: WORKDIR/hf), the file of `report`."
)
flags.DEFINE_string(
    "log", None, "An official TOFU log (JSON); its aggregates are recomputed. Needs no model, no workdir."
)
flags.DEFINE_string(
    "retain_log", None, "The log of a model that never saw the forget set, for forget quality and privacy leak."
)
flags.DEFINE_integer("round", None, "Which saved round; default: the last one.")
flags.DEFINE_integer("samples", 0, "Answers to draw for each question; 0 = the greedy one.", lower_bound=0)
flags.DEFINE_string("profile", None, "Rounds to trace for TensorBoard, from 0 on, such as 2 or 2,3: WORKDIR/profile.")
flags.DEFINE_bool("json", False, "Print JSON instead of tables.")
flags.DEFINE_bool("redact", False, "Show no answer to a forget question.")
flags.DEFINE_string("topology", None, "The TPUs or GPUs to plan for, such as v5e:2x4, 2*v5e:4x4, h100:8, 2*h200:8.")
flags.DEFINE_integer("slices", 1, "How many such slices.")
flags.DEFINE_enum(
    "compile",
    None,
    ["none", "depths", "whole"],
    "What is compiled: the programs of a run (whole: TPUs; earlier called depths), or nothing (none: GPUs).",
)
flags.DEFINE_integer("questions", 400, "Questions to forget.")
flags.DEFINE_integer("prefix_tokens", 36, "Tokens that all prompts begin with.")
flags.DEFINE_integer("prompt_tokens", 64, "Tokens of a prompt on average, the shared ones included.")
flags.DEFINE_integer("answer_tokens", 45, "Tokens of a sampled answer on average.")
flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the process with --process_id=0. SLURM, Kubernetes, Cloud TPU need none."
)
flags.DEFINE_integer("num_processes", None, "With --coordinator: how many processes the run has, one a host.")
flags.DEFINE_integer("process_id", None, "With --coordinator: which of them this one is, 0 to num_processes - 1.")
flags.DEFINE_integer(
    "peer_timeout", 100, "Seconds after which a process that is not heard of ends the run.", lower_bound=1
)


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


def setting_name(word: str) -> str:
    """The dotted name of the setting that a word of the command line changes; empty for any other word."""
    return word.removeprefix("--config.").split("=")[0] if word.startswith("--config.") else ""


def changed_settings() -> list[str]:
    """The names of the settings that the command line gives."""
    return [name for name in map(setting_name, sys.argv) if name in settings.NAMES]


def given_settings(verb: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    """{name: value} of the settings on the command line, for a verb that takes the others from a run."""
    for name in changed_settings():
        if name not in allowed:
            raise UserError(f"{verb}: {name} is the run's own; only {', '.join(allowed)} can be given")
    whole = settings.with_whole_paths(FLAGS.config)
    return {name: settings.lookup(whole, name) for name in changed_settings()}


def path(word: str) -> str:
    """The path that a word of the command line means.

    Raises:
        UserError: it is an address such as gs://bucket/run, which would be taken for the name of a local folder.
    """
    if "://" in word:
        mounted = "/mnt/" + word.split("://")[1]
        raise UserError(
            f"{word}: not a folder; mount the bucket first (gcsfuse, NFS: launch/README.md says how), then give its "
            f"folder, such as {mounted}"
        )
    return expand(word)


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

        run_export(FLAGS.workdir, FLAGS.output, FLAGS.round, given_settings("export", ("model.path", *MESH)))


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
