"""The command line: reads the words, prints the help, and starts the verb."""

import ast
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from absl import logging

from pmc_jax import config as settings
from pmc_jax.errors import UserError, explain
from pmc_jax.runs.flags import FLAGS, path, setting_name
from pmc_jax.runs.presets import find_preset, preset_names
from pmc_jax.runs.verbs import VERBS, Verb
from pmc_jax.settings.comparison import COMPARISON
from pmc_jax.tracking.library_threads import hushed_libraries
from pmc_jax.tracking.log import show_log
from pmc_jax.tracking.stopping import EXIT_CODE, Stopped, raise_stopped

OPTIONS = "prompt.template_options"
OWN = tuple(s.name for s in COMPARISON)  # of one verb alone
DICTS = tuple(f"{name}." for name in settings.DICTS)
HOSTS = """\
Several hosts: start the same command on each, with a workdir that all of them share. Under SLURM, in a Kubernetes
JobSet and on Cloud TPU they find each other. Elsewhere give each --coordinator=HOST:PORT (of process 0),
--num_processes=N and --process_id=I. One that is not heard of for --peer_timeout=100 seconds ends the run.
--verbosity=0 writes a line on stderr as each round and each phase begins, on every process."""


def usage() -> str:
    """What `pmc-jax --help` prints: the verbs, a way through them, and every setting."""
    verbs = "\n".join(f"  {name:<10}{verb.meaning}" for name, verb in VERBS.items())
    first = "\n".join(f"  {VERBS[name].example}" for name in ("demo", "unlearn", "ask", "report"))
    return f"""\
Make a language model forget questions by partial model collapse (PMC).

  pmc-jax VERB [--config=PRESET] [--config.SECTION.NAME=VALUE ...] --workdir=DIR

Verbs (pmc-jax VERB --help explains one):
{verbs}

A way through:
{first}

Presets: {", ".join(preset_names())}. --config takes one of them, or the path of a settings file of your own.
Some take a word: --config=rivals:npo, --config=ablations:lambda.
A setting on the command line takes the place of the preset's. The same command again goes on where it was stopped.

{HOSTS}

Settings and their defaults:
{settings.describe()}"""


def usage_of(name: str) -> str:
    """What `pmc-jax VERB --help` prints: the verb, its flags, and the settings that it reads."""
    verb = VERBS[name]
    words = f"{verb.words} " if verb.words else ""
    lines = [f"pmc-jax {name} {words}[flags]", "", f"What it does: {verb.meaning}.", f"Example: {verb.example}"]
    lines += ["", "Flags:"]
    for flag in (*(["config"] if verb.sections else []), *verb.flags):
        default = f" [default: {FLAGS[flag].default}]" if FLAGS[flag].default not in (None, False) else ""
        lines.append(f"  --{flag:<15}{FLAGS[flag].help}{default}")
    if verb.preset:
        lines += ["", f"It starts from the preset {verb.preset!r}, in --workdir=runs/{name} when none is given."]
    if verb.sections and "workdir" in verb.flags:
        lines += ["", HOSTS]
    if verb.sections:
        lines += ["", "Settings and their defaults:", settings.describe(verb.sections)]
    return "\n".join(lines)


def joined_options(words: list[str]) -> list[str]:
    """The words with all `--config.prompt.template_options.NAME=VALUE` as one, which may bring new names."""
    start, options, others = f"--config.{OPTIONS}.", {}, []
    for word in words:
        if not word.startswith(start):
            others.append(word)
            continue
        name, _, value = word.removeprefix(start).partition("=")
        try:
            options[name] = ast.literal_eval({"true": "True", "false": "False"}.get(value, value or "True"))
        except (SyntaxError, ValueError):
            options[name] = value
    return [*others, f"--config.{OPTIONS}={options!r}"] if options else others


def check_words(name: str, words: list[str]) -> None:
    """UserError for a setting that there is not, and for a flag of another verb."""
    for word in words:
        setting = setting_name(word)
        if setting and setting not in (*settings.NAMES, *OWN) and not setting.startswith(("demo.", *DICTS)):
            raise UserError(f"{word}: there is no setting {setting!r}{settings.suggest(setting)}")
        flag = word.removeprefix("--").split("=")[0]
        others = [other for other, verb in VERBS.items() if flag in verb.flags]
        if word.startswith("--") and others and name not in others and flag != "workdir":
            raise UserError(f"--{flag}: a flag of {' and '.join(others)}, not of {name} (pmc-jax {name} --help)")


def words_of(error: Exception) -> str:
    """What an error of the flags says, in one line. ml_collections puts a whole traceback around what a preset says of
    the name behind its colon.
    """
    lines = str(error).strip().splitlines() or [""]
    last = lines[-1].removeprefix("ValueError: ")
    return last if last.startswith("--config=") else " ".join(" ".join(lines).split())


def parse(argv: list[str]) -> tuple[Verb, list[str]]:
    """The verb and the words that are no flags, after absl has read the flags. UserError for what it cannot read."""
    if not argv or argv[0] not in VERBS:
        problem = f"{argv[0]!r} is no verb" if argv else "no verb given"
        raise UserError(f"{problem}; choose one of {', '.join(VERBS)} (pmc-jax --help explains them)")
    name, verb = argv[0], VERBS[argv[0]]
    check_words(name, argv[1:])
    given = joined_options(argv[1:])
    presets = [word.removeprefix("--config=") for word in given if word.startswith("--config=")]
    preset = (presets or [verb.preset])[-1]
    file = find_preset(preset) if preset else settings.__file__
    # The preset comes first, whatever the order on the command line: settings change what it says. ml_collections looks
    # into sys.argv for them.
    sys.argv = ["pmc-jax", f"--config={file}", *(word for word in given if not word.startswith("--config="))]
    try:
        words = FLAGS(sys.argv)[1:]
        _ = FLAGS.config.seed  # a preset that fails to load tells it at the first look
    except Exception as error:  # absl, ml_collections and the preset file itself raise many kinds here
        raise UserError(words_of(error)) from None
    if words and not verb.words:
        raise UserError(f"{words[0]!r} is not a flag; settings are given as --config.section.key=value")
    return verb, words


def print_help(text: str) -> None:
    """Print, also into a pipe whose reader has seen enough, such as `head`."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end


def run(argv: list[str]) -> None:
    """Do what the command line says."""
    help_words = {"--help", "-h", "help", "--helpfull", "--helpshort"}
    if help_words & set(argv[:2]) or help_words - {"help"} & set(argv):
        named = [word for word in argv if word in VERBS]
        print_help(usage_of(named[0]) if named else usage())
        return
    verb, words = parse(argv)
    if FLAGS.verbosity >= logging.INFO:
        show_log()
    if FLAGS.verbosity < logging.DEBUG:  # the libraries' own lines would hide ours
        logging.set_verbosity(logging.ERROR)
    for name in ("workdir", "output", "log", "retain_log"):
        FLAGS[name].value = FLAGS[name].value and path(FLAGS[name].value)
    verb.run(words)


def end(code: int, line: str) -> None:
    """Say why, and end."""
    print(f"pmc-jax: {line}", file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def sigterm_told() -> Iterator[None]:
    """SIGTERM comes as an exception inside."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, raise_stopped)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Entry point of the `pmc-jax` script.

    Exit codes: 0; 2 with one line on stderr for what the user can mend; 130 for Ctrl-C and 143 for SIGTERM, after which
    the same command goes on; 1 for a fault of the program.
    """
    logging.set_verbosity(logging.ERROR)
    # It would say at each start that torch is missing, which nothing here needs.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        with hushed_libraries(), sigterm_told():
            run(sys.argv[1:])
    except KeyboardInterrupt:
        end(130, "stopped; a run goes on from its last saved round with the same command")
    except Stopped:
        end(EXIT_CODE, "stopped by SIGTERM; what was done is saved, and the same command goes on from there")
    except Exception as error:
        end(*explain(error))


if __name__ == "__main__":
    main()
