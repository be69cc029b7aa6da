"""The flags of the command line, and what they say."""

import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from pmc_jax import config as settings
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
flags.DEFINE_integer("task", None, "Which share of the runs this process does, from 0; a SLURM array says it itself.")
flags.DEFINE_integer("tasks", None, "With --task: how many shares there are.")
flags.DEFINE_bool("table", False, "Start no run: make the table of the runs that are there.")
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
