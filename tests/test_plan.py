"""Plans for a TPU that is not here: the real programs of a tiny model, compiled with libtpu where it is installed."""

import importlib.util
import json
import subprocess

import jax
import pytest
from lines import refused
from tiny import LLAMA, ROOT

from pmc_jax.distributed import meshes
from pmc_jax.methods.settings import read_training
from pmc_jax.plan import abstract
from pmc_jax.plan.abstract import Assumed
from pmc_jax.training.settings import make_recipe
from pmc_jax.training.state import start_state


def needs_libtpu(test):
    """Run by `make parity`, which installs the compiler."""
    absent = importlib.util.find_spec("libtpu") is None
    return pytest.mark.parity(
        pytest.mark.skipif(absent, reason="libtpu is not installed: pip install -e '.[plan]'")(test)
    )


LAYERS = 3  # in a loop
TINY = LLAMA | dict(hidden_size=256, intermediate_size=512, num_hidden_layers=LAYERS)
SMALL = (
    "--questions=16",
    "--config.train.batch_size=8",
    "--config.train.remat=True",
    "--config.sample.num_samples=2",
    "--config.sample.max_rows=8",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a config.json and nothing else."""
    made = tmp_path_factory.mktemp("tiny")
    (made / "config.json").write_text(json.dumps(TINY))
    return made


@pytest.fixture(scope="module")
def plan(command, folder):
    """plan(*flags) -> the finished process; one of its own, as the compiler's flags for TPUs are not the tests' for
    CPUs.
    """

    def run(*flags):
        arguments = command("plan", "--config=configs/tofu_llama.py", f"--config.model.path={folder}", *SMALL, *flags)
        return subprocess.run(
            ["env", "-u", "XLA_FLAGS", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=900
        )

    return run


@pytest.fixture(scope="module")
def compiled(plan):
    """The plan of a mesh with both axes, as JSON."""
    done = plan("--topology=v5e:2x4", "--config.mesh.data=4", "--config.mesh.model=2", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@needs_libtpu
def test_decode_gathers_no_weight_and_an_update_does(compiled):
    assert compiled["programs"]["decode"]["weight_gathers"] == 0
    assert compiled["programs"]["prefill"]["weight_gathers"] == 0
    assert compiled["programs"]["update"]["weight_gathers"] > 0, (
        "an update's weights are sharded over data: were they not recognised?"
    )


@needs_libtpu
def test_an_update_keeps_rows_where_they_are(compiled):
    """No activations or logits go round among the devices of the data axis: only weights, gradients, and what tells
    tokens apart.
    """
    packing = compiled["packing"]
    rows = 4 * packing["rows"] * packing["length"]
    gathers = [
        c for c in compiled["programs"]["update"]["collectives"] if c["kind"] == "all-gather" and c["group"] == 4
    ]
    assert all(
        c["elements"] != rows * TINY[width]
        for c in gathers
        for width in ("hidden_size", "intermediate_size", "vocab_size")
    )


@needs_libtpu
def test_memory_and_work_are_what_the_shapes_say(compiled):
    count = 512 * 256 + LAYERS * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512 + 2 * 256) + 256
    assert compiled["parameters"] == count
    norms = (2 * LAYERS + 1) * 256  # on every device of the data axis
    assert compiled["held"]["params"] == 4 * ((count - norms) // 8 + norms), "float32, as the preset trains"
    assert compiled["held"]["sampling"] == 2 * ((count - norms) // 2 + norms)
    assert 2 * compiled["held"]["params"] <= compiled["held"]["optimizer"] <= 2 * compiled["held"]["params"] + 64
    assert compiled["memory"]["fits"] and max(compiled["memory"]["used"].values()) < 2**28
    positions = compiled["packing"]["rows"] * compiled["packing"]["length"]
    products = 8 * (count - 512 * 256) * positions / 2
    assert 0.8 * products < compiled["programs"]["update"]["flops"] < 2 * products
    for program in compiled["programs"].values():
        assert (
            0 < program["optimal_seconds"] < 1 and program["roofline"]["bound"] > 0 and program["float32_products"] == 0
        )
    assert compiled["seconds"]["round"] == pytest.approx(compiled["seconds"]["sample"] + compiled["seconds"]["update"])


@needs_libtpu
def test_a_decode_step_reads_weights_and_cache_once(compiled):
    """No copy of a layer's weights or of a cache is left: the compiler's arguments are all that there is to read."""
    step = compiled["programs"]["decode"]
    assert 0.5 * step["arguments"] < step["bytes"] < 2 * step["arguments"]  # of so small a model all else weighs too


@needs_libtpu
def test_adapters_are_planned_as_they_are_trained(plan, compiled):
    done = plan("--topology=v5e:2x4", "--config.mesh.data=4", "--config.mesh.model=2", "--json", "--config.lora.rank=4")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    count = LAYERS * 4 * (2 * (256 + 256) + 2 * (256 + 128) + 3 * (256 + 512))  # rank x (in + out) of every matrix
    assert found["trained"] == count and compiled["trained"] == compiled["parameters"] == found["parameters"]
    assert found["held"]["params"] == 4 * count, "float32, the same on every chip"
    assert 2 * 4 * count <= found["held"]["optimizer"] <= 2 * 4 * count + 64
    # Adapters lie over the start parameters; where these are trained themselves, a run gives its own away.
    assert (found["held"]["start"], compiled["held"]["start"]) == (compiled["held"]["params"], 0)
    assert found["held"]["sampling"] == compiled["held"]["sampling"]
    update, whole = found["programs"]["update"], compiled["programs"]["update"]
    assert update["aliased"] >= found["held"]["params"] + found["held"]["optimizer"] - 64, (
        "the state is donated, and comes back as it went in"
    )
    assert update["arguments"] < whole["arguments"]
    assert 0.6 * whole["flops"] < update["flops"] < 1.5 * whole["flops"]
    assert found["memory"]["used"]["decode"] > compiled["held"]["start"] + compiled["held"]["sampling"]
    assert found["programs"]["decode"]["weight_gathers"] == 0


@pytest.mark.parametrize(("rank", "scan"), [(0, 0), (4, 0), (0, 1)])
def test_the_planned_state_is_the_one_that_is_trained(tiny_checkpoint, small, rank, scan):
    config = small({"lora.rank": rank})
    tiny_checkpoint = tiny_checkpoint.replace(model=tiny_checkpoint.model.clone(scan=scan))
    shape = abstract.Shape(tiny_checkpoint.family, tiny_checkpoint.model)
    planned = abstract.training(shape, config, meshes.mesh_of(tiny_checkpoint.params), Assumed(8, 36, 64, 45))
    recipe = make_recipe(tiny_checkpoint.family, tiny_checkpoint.model, read_training(config), updates=2)
    state = start_state(tiny_checkpoint, recipe, config.seed)
    assert planned.recipe == recipe and (planned.base is not None) == bool(rank)
    assert jax.tree.structure(planned.state) == jax.tree.structure(state)
    for like, real in zip(*map(jax.tree.leaves, (planned.state, state))):
        assert (like.shape, like.dtype) == (real.shape, real.dtype) and like.sharding.is_equivalent_to(
            real.sharding, real.ndim
        )


@needs_libtpu
def test_the_tables_choose_a_mesh(plan):
    done = plan("--topology=2*v5e:2x2", "--compile=none")
    assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
    assert "8 x 1" in done.stdout and "4 x 2" in done.stdout and "fits" in done.stdout and "a round:" in done.stdout


@needs_libtpu
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--topology=v5e:3x5"], ["v5e:3x5", "no such slice"]),
        (["--topology=v5e:2x4", "--config.mesh.model=3"], ["mesh.model=3", "which is 8"]),
        (["--topology=v5e:2x4", "--config.mesh.model=4"], ["mesh.model=4", "2 key/value heads"]),
        (["--topology=2*v5e:2x2", "--config.mesh.model=8", "--config.mesh.data=1"], ["mesh.data=1", "2 slices"]),
        (
            ["--topology=v5e:2x4", "--config.lora.rank=4", "--config.lora.targets=c_proj"],
            ["lora.targets='c_proj'", "q_proj"],
        ),
    ],
)
def test_what_cannot_be_is_one_line(plan, flags, words):
    assert refused(plan(*flags), *words)


MESHES = """
import jax
jax.config.update("jax_num_cpu_devices", 8)
import json, sys, types
import numpy as np
from pmc_jax import config
from pmc_jax.distributed import meshes
from pmc_jax.models import weights
from pmc_jax.methods.settings import read_batch, read_training
from pmc_jax.training import loop, update
from pmc_jax.training.batching import ExpectedRows, choose_packing
from pmc_jax.training.run import train_on
from pmc_jax.training.settings import make_recipe
from pmc_jax.training.state import start_params, start_state
from pmc_jax.models import find_family
from pmc_jax.data.packing import GROUPS, Row, pack
raw = json.loads(sys.argv[1]) | {"hidden_size": 32, "intermediate_size": 64}
settings, draw = config.default(), np.random.default_rng(0)
settings.train.batch_size, settings.train.warmup_epochs, settings.lora.rank = 8, 0.0, int(sys.argv[2])
rows = [Row([1] * 6 + draw.integers(2, 500, 20 + i % 9).tolist(), 15, GROUPS[i % 2]) for i in range(16)]
for data, model in ((1, 1), (4, 2)):
    mesh = meshes.make_mesh(data, model, jax.devices()[: data * model])
    family = find_family(raw)
    turns, chunk = int(sys.argv[3]), 512 * 40  # layers in a loop, and the state stacked; the head in chunks
    model = family.module(family.read_config(raw), remat=True, scan=turns, logits_at_once=chunk)
    params = weights.init_params(family, model, mesh, 0, "float32")
    checkpoint = types.SimpleNamespace(family=family, model=model, params=params)
    expected = ExpectedRows((rows[::2], rows[1::2]), 40, 8)
    packing = choose_packing(expected, read_batch(settings), mesh)
    recipe = make_recipe(family, model, read_training(settings), updates=1)
    state = start_state(checkpoint, recipe, settings.seed)
    lies = update.layout(state)
    step = loop.compile_update(checkpoint, recipe, state, packing, rows[0], start_params(checkpoint, recipe)).result()
    state, updates = train_on(step, state, [rows, rows], packing)
    assert all(a.is_equivalent_to(b, x.ndim) for a, b, x in zip(lies, update.layout(state), jax.tree.leaves(state)))
    print(json.dumps([u[k] for u in updates for k in ("forget_loss", "retain_loss", "grad_norm")]))
"""


@pytest.mark.parametrize(("rank", "scan"), [(0, 0), (4, 0), (0, 1), (4, 1)])
def test_updates_on_a_mesh_are_those_of_one_device(python, rank, scan):
    """Also of adapters, whose state comes back as it went in: the second update is the same program."""
    done = python(MESHES, json.dumps(TINY), rank, scan)
    assert done.returncode == 0, done.stderr[-2000:]
    one, several = (json.loads(line) for line in done.stdout.splitlines())
    assert several == pytest.approx(one, rel=1e-5)
