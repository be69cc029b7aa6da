"""What the tests share: one CPU device, no network, a compile cache of their own, and two tiny checkpoints that know a
few authors by heart.

Programs for several devices run in a process of their own (test_mesh.py, test_hosts.py): with 8 virtual devices every
other test would be slower.
"""

import gc
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

# Read when jax and the hub's clients are imported; subprocesses inherit them.
CACHE = tempfile.mkdtemp(prefix="pmc_jax_tests_")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Tiny models compile far longer than they run: with little optimisation the compiler is several times faster, and runs
# are half as fast.
QUICK_COMPILER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if (
    version("jaxlib") < "0.11"
):  # later ones have fusion emitters only, and do not start with a flag that they do not know
    QUICK_COMPILER += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILER}"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"  # axes are named: none is to appear by itself
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402
from filelock import FileLock  # noqa: E402
from hypothesis import HealthCheck  # noqa: E402
from hypothesis import settings as hypothesis_settings  # noqa: E402
from launch_stubs import launch, world  # noqa: E402, F401  fixtures
from tiny import AUTHORS, LLAMA, PHI, ROOT, SMALL  # noqa: E402

from pmc_jax import config as settings  # noqa: E402
from pmc_jax.data.authors import make_authors, write_authors  # noqa: E402

# The same cases in every run, and none that fails since the machine is busy.
hypothesis_settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("steady")


def pytest_unconfigure(config):
    shutil.rmtree(CACHE, ignore_errors=True)


# Linux gives a process 65,530 memory maps, and every compiled program takes three: past that, a thread or the compiler
# ends with a segmentation fault.
MAPS = Path("/proc/self/maps")
MANY_MAPS = 20_000


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Lets compiled programs go before the next file, once there are many; those that took long lie in the cache."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def splits():
    """{split: rows} of ten authors with four questions each; forget20 has 8 rows, retain80 has 32."""
    return make_authors(**AUTHORS)


@pytest.fixture(scope="session")
def forget_questions(splits):
    return [row["question"] for row in splits["forget20"]]


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    return write_authors(tmp_path_factory.mktemp("authors"), **AUTHORS)


@pytest.fixture(scope="session")
def small():
    """small(**{"train.epochs": 2}) -> a config for the tiny checkpoints."""

    def make(changes: dict | None = None):
        config = settings.default()
        config.update_from_flattened_dict(SMALL | (changes or {}))
        return config

    return make


@pytest.fixture(scope="session")
def learn_by_heart(splits, tmp_path_factory, worker_id):
    """learn_by_heart("name", raw, tokenizer) -> a checkpoint that knows `full`. The first process that asks trains it,
    others read it.
    """
    base = tmp_path_factory.getbasetemp()
    everyone = base if worker_id == "master" else base.parent

    def learn(name, raw, tokenizer):
        from pmc_jax.methods.finetune import finetune
        from pmc_jax.models import pretrained

        ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        config = settings.default()
        config.update_from_flattened_dict(
            {"train.epochs": 42, "train.batch_size": 8, "train.learning_rate": 5e-3, "train.warmup_epochs": 2.0}
        )
        with FileLock(everyone / f"{name}.lock"):
            if not (everyone / name).exists():
                fresh = pretrained.create(raw | {k: v for k, v in ids.items() if v is not None}, tokenizer, seed=0)
                pretrained.export(finetune(fresh, splits["full"], config)[0], everyone / name)
            return pretrained.load(str(everyone / name))

    return learn


@pytest.fixture(scope="session")
def tokenizer(splits):
    from pmc_jax.data.tokenizer import train_tokenizer

    return train_tokenizer(splits["full"], 512)


@pytest.fixture(scope="session")
def plain_tokenizer(splits):
    """Without a chat template and without a padding token."""
    from pmc_jax.data.tokenizer import train_tokenizer

    found = train_tokenizer(splits["full"], 512)
    found.chat_template = found.pad_token = None
    return found


@pytest.fixture(scope="session")
def tiny_checkpoint(learn_by_heart, tokenizer):
    """A Llama with grouped heads, a tied head and a chat template; answers all questions of `full` word for word."""
    return learn_by_heart("llama", LLAMA, tokenizer)


@pytest.fixture(scope="session")
def tiny_phi(learn_by_heart, plain_tokenizer):
    """A Phi with the plain template; vocabulary wider than the tokenizer."""
    return learn_by_heart("phi", PHI, plain_tokenizer)


@pytest.fixture(scope="session")
def fresh_checkpoint(tokenizer):
    """Untrained: every next token is about as likely as any other."""
    from pmc_jax.models import pretrained

    return pretrained.create(LLAMA | {"eos_token_id": tokenizer.eos_token_id}, tokenizer, seed=1)


@pytest.fixture(scope="session")
def tiny_folder(tiny_checkpoint, tmp_path_factory):
    """`tiny_checkpoint` as a Hugging Face folder. Tests that damage it work on a copy."""
    from pmc_jax.models import pretrained

    return pretrained.export(tiny_checkpoint, tmp_path_factory.mktemp("tiny") / "hf")


@pytest.fixture(scope="session")
def tiny_gguf(tiny_checkpoint, tmp_path_factory):
    """`tiny_checkpoint` as a GGUF file of float32."""
    from gguf_files import write_gguf

    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_checkpoint)


@pytest.fixture
def damaged(tiny_folder, tmp_path):
    """A copy of the tiny folder to be damaged."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def shared():
    """shared("tofu") -> that folder of the data beside the project; the test is skipped where it is absent."""

    def find(name: str) -> Path:
        for base in (ROOT.parent / "shared", ROOT / "shared"):
            if (base / name).exists():
                return base / name
        pytest.skip(f"shared/{name} is not beside the project")

    return find


@pytest.fixture
def make_run(tmp_path):
    """make_run("first", **{"seed": 1}) -> the folder of a finished run, for the report."""
    from report_pages import run_maker

    return run_maker(tmp_path)


@pytest.fixture
def make_evaluation(make_run):
    """make_evaluation("name", results) -> the folder of a finished evaluation, for the report."""
    from report_pages import evaluation_maker

    return evaluation_maker(make_run)


class Said(NamedTuple):
    """What the command line did."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch, capsys):
    """cli("unlearn", "--workdir=...") -> Said: the command line in this process, its flags defined anew as in a fresh
    one.
    """

    def call(*arguments) -> Said:
        monkeypatch.setattr(sys, "argv", ["pmc-jax", *map(str, arguments)])
        ours = {flag.name for flag in flags.FLAGS.flags_by_module_dict().get("pmc_jax.runs.flags", [])}
        for name in [n for n in flags.FLAGS if n in ours or n.startswith("config.")]:
            delattr(flags.FLAGS, name)
        for module in ("pmc_jax.main", "pmc_jax.runs.verbs", "pmc_jax.runs.flags"):
            sys.modules.pop(module, None)
        main = importlib.import_module("pmc_jax.main")
        capsys.readouterr()
        code = 0
        try:
            main.main()
        except SystemExit as stop:
            code = stop.code
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def command():
    """command("unlearn", ...) -> arguments that start the command line in a process of its own."""
    return lambda *arguments: [sys.executable, "-m", "pmc_jax.main", *map(str, arguments)]


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """python(code, *arguments) -> CompletedProcess of a fresh interpreter."""

    def run(code: str, *arguments) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=900
        )

    return run
