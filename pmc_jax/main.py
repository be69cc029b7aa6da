"""The command line: verb -> function."""

import os
import sys

from absl import flags, logging
from ml_collections import config_flags

from pmc_jax import config as settings
from pmc_jax.distributed import multihost
from pmc_jax.errors import UserError

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "Preset to start from, as configs/tofu.py; defaults when not given.")
flags.DEFINE_string("workdir", None, "Folder of the run: made when absent; a stopped run in it goes on.")
flags.DEFINE_string(
    "output",
    None,
    "export: folder to write; WORKDIR/hf when not given. report: file to write; report.html in the first workdir "
    "when not given.",
)
flags.DEFINE_string(
    "log",
    None,
    "evaluate: an official TOFU log (JSON) whose aggregates are recomputed and printed; needs no model and no workdir.",
)
flags.DEFINE_string(
    "retain_log",
    None,
    "evaluate: the log of a model that never saw the forget set, for forget quality and privacy leak.",
)
flags.DEFINE_integer("round", None, "export: which saved round; the last one when not given.")
flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of the process with --process_id=0; found out by itself under SLURM, Kubernetes and on Cloud TPU.",
)
flags.DEFINE_integer("num_processes", None, "With --coordinator: how many processes the run has, one a host.")
flags.DEFINE_integer("process_id", None, "With --coordinator: which of them this one is, 0 to num_processes - 1.")
flags.DEFINE_integer(
    "peer_timeout", 100, "Seconds after which a process that is not heard of ends the run.", lower_bound=1
)
flags.DEFINE_string("topology", None, "plan: the TPU slice to plan for, as v5e:2x4, v5p:2x4x4, 2*v5e:4x4.")
flags.DEFINE_integer("slices", 1, "plan: how many such slices.")
flags.DEFINE_bool("json", False, "plan: print JSON instead of tables.")
flags.DEFINE_enum(
    "compile",
    "depths",
    ["none", "depths", "whole"],
    "plan: two shallow models, extrapolated; every layer; or estimates alone.",
)
flags.DEFINE_integer("questions", 400, "plan: questions to forget.")
flags.DEFINE_integer("prefix_tokens", 36, "plan: tokens that all prompts begin with.")
flags.DEFINE_integer("prompt_tokens", 64, "plan: tokens of a prompt on average, the shared ones included.")
flags.DEFINE_integer("answer_tokens", 45, "plan: tokens of a sampled answer on average.")

VERBS = {
    "unlearn": "make a checkpoint forget questions by partial model collapse",
    "finetune": "train a checkpoint (or a new model) on question-answer rows",
    "evaluate": (
        "TOFU's metrics, leakage, relearning, side effects of a checkpoint; or those of a log: evaluate "
        "--log=FILE [--retain_log=FILE]"
    ),
    "export": "write a saved round of a run as a Hugging Face checkpoint",
    "report": (
        "report.html of one run, or of several side by side: pmc-jax report WORKDIR [WORKDIR ...] [--output=FILE]"
    ),
    "plan": (
        "what a run takes on a TPU slice, compiled without one: plan --config.model.path=... "
        "--topology=v5e:2x4 [--json]"
    ),
    "demo": "a small model learns fictitious authors and forgets a tenth of them; no network, minutes",
}
EXAMPLE = "pmc-jax unlearn --config=configs/tofu.py --config.model.path=FOLDER_OR_HUB_ID --workdir=runs/first"

HOSTS = """\
Several hosts: start the same command on each, with a workdir that all of them share. Under SLURM, in a Kubernetes
JobSet and on Cloud TPU they find each other. Elsewhere give each --coordinator=HOST:PORT (of process 0),
--num_processes=N and --process_id=I. One that is not heard of for --peer_timeout=100 seconds ends the run."""


def usage() -> str:
    """What --help prints."""
    verbs = "\n".join(f"  {name:<10}{what}" for name, what in VERBS.items())
    return (
        "Unlearn a language model by partial model collapse (PMC).\n\n"
        "pmc-jax VERB [--config=configs/NAME.py] [--config.section.key=value ...] --workdir=DIR\n\n"
        f"Verbs:\n{verbs}\n\nExample:\n  {EXAMPLE}\n\nThe same command again goes on where it was "
        f"stopped.\n\n{HOSTS}\n\n"
        f"Settings and their defaults:\n{settings.describe()}"
    )


def parse(argv: list[str]) -> tuple[str, list[str]]:
    """The verb and the workdirs named after it (report alone has those), after absl has read the flags. UserError for
    anything it cannot read.
    """
    if not argv or argv[0] not in VERBS:
        got = f"{argv[0]!r} is no verb" if argv else "no verb given"
        raise UserError(f"{got}; choose one of {', '.join(VERBS)} (pmc-jax --help explains them)")
    given = [a for a in argv[1:] if a.startswith("--config=")] or [f"--config={settings.__file__}"]
    if not os.path.exists(given[-1].removeprefix("--config=")):
        raise UserError(f"{given[-1]}: no such file; presets lie in configs/")
    for flag in argv[1:]:
        name = flag.split("=")[0].removeprefix("--config.")
        if (
            flag.startswith("--config.")
            and name not in settings.NAMES
            and not name.startswith(("model.scratch.", "demo."))
        ):
            raise UserError(f"{flag}: there is no setting {name!r}{settings.suggest(name)}")
    # The preset comes first, whatever the order on the command line: settings change what it says. ml_collections looks
    # into sys.argv for them.
    sys.argv = ["pmc-jax", given[-1], *(a for a in argv[1:] if not a.startswith("--config="))]
    try:
        rest = FLAGS(sys.argv)[1:]
        _ = FLAGS.config.seed  # a preset that fails to load tells it at the first look
    except Exception as error:  # absl, ml_collections and the preset file itself raise many kinds here
        raise UserError(" ".join(str(error).split())) from None
    if rest and argv[0] != "report":
        raise UserError(f"{rest[0]!r} is not a flag; settings are given as --config.section.key=value")
    return argv[0], rest


def check_folder(path: str | None) -> None:
    """UserError for an address as gs://bucket/run: it would be taken for the name of a local folder."""
    if path and "://" in path:
        mounted = "/mnt/" + path.split("://")[1]
        raise UserError(
            f"{path}: not a folder; mount the bucket first (gcsfuse, NFS: launch/README.md says how), then give its "
            f"folder, as {mounted}"
        )


def run_report(workdirs: list[str]) -> None:
    """Write the page and say where; needs no device."""
    from pmc_jax.report import page

    workdirs = workdirs or ([FLAGS.workdir] if FLAGS.workdir else [])
    if not workdirs:
        raise UserError("report: name the workdir of a run, or several: pmc-jax report WORKDIR [WORKDIR ...]")
    print(f"report: {page.write(workdirs, FLAGS.output)}")


def run_plan() -> None:
    """Print what a run would take; needs no workdir, no weights, and no TPU."""
    import json

    from pmc_jax.plan import run, show, topology
    from pmc_jax.plan.abstract import Assumed

    where = topology.parse_topology(FLAGS.topology, FLAGS.slices)
    assumed = Assumed(FLAGS.questions, FLAGS.prefix_tokens, FLAGS.prompt_tokens, FLAGS.answer_tokens)
    found = run.plan(FLAGS.config, where, assumed, FLAGS.compile)
    print(json.dumps(found, indent=1)) if FLAGS.json else show.show(found)


def run(verb: str, workdirs: list[str]) -> None:
    """Do what the verb says with the parsed flags."""
    for path in (FLAGS.workdir, FLAGS.output, *workdirs):
        check_folder(path)
    if verb == "report":
        run_report(workdirs)
        return
    if verb == "plan":
        run_plan()
        return
    if verb == "evaluate" and FLAGS.log:
        from pmc_jax.runs.evaluate import recompute_log

        recompute_log(FLAGS.log, FLAGS.retain_log)
        return
    if not FLAGS.workdir:
        raise UserError("--workdir=DIR is missing: the folder where the run keeps everything")
    with multihost.join(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id, FLAGS.peer_timeout):
        run_on_devices(verb)


def run_on_devices(verb: str) -> None:
    """Do what a verb that computes says."""
    import jax

    # Compiled programs are kept across runs: the second start of a run compiles nothing.
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/pmc_jax/compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    if verb == "unlearn":
        from pmc_jax.runs.unlearn import unlearn

        unlearn(FLAGS.config, FLAGS.workdir)
    elif verb == "finetune":
        from pmc_jax.runs.finetune import run_finetune

        run_finetune(FLAGS.config, FLAGS.workdir)
    elif verb == "evaluate":
        from pmc_jax.runs.evaluate import run_evaluate

        run_evaluate(FLAGS.config, FLAGS.workdir, FLAGS.retain_log)
    elif verb == "export":
        from pmc_jax.runs.export import run_export

        run_export(FLAGS.workdir, FLAGS.output or os.path.join(FLAGS.workdir, "hf"), FLAGS.round)
    else:
        from pmc_jax.runs.demo import run_demo

        run_demo(FLAGS.config, FLAGS.workdir)


def main() -> None:
    """Entry point of the `pmc-jax` script: exit code 0, or 2 with one line on stderr for a mistake of the user."""
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault(
        "TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"
    )  # it would say at each start that torch is missing, which nothing here needs
    argv = sys.argv[1:]
    if any(a in ("--help", "-h", "help", "--helpfull") for a in argv):
        print(usage())
        return
    try:
        run(*parse(argv))
    except UserError as error:
        print(f"pmc-jax: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("pmc-jax: stopped; the same command goes on from the last finished round", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
