"""Eight devices, as one: 8 x 1, 4 x 2, 2 x 4 and 1 x 8 (data x model) against one device, and a run that goes on on
another mesh.

The model is untrained: every next token is about as likely as any other, so that a difference in the logits would show
in the samples.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from lines import refused
from tiny import LLAMA, ROOT

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.distributed import meshes
from pmc_jax.errors import UserError
from pmc_jax.models import pretrained

MESHES = ["8x1", "4x2", "2x4", "1x8"]
HOT = dict(num_samples=30, temperature=1.0, top_p=0.95, top_k=50, max_new_tokens=24, seed=3)
CHANGES = {
    "train.epochs": 3,
    "train.learning_rate": 1e-4,
    "train.warmup_epochs": 0.0,
    "sample.max_new_tokens": 24,
    "evaluate.max_new_tokens": 24,
    "pmc.skip_solved": False,
}
# Adam divides a gradient by its own size: where that is next to nothing, rounding decides on up to the whole learning
# rate.
STOPPED = 1  # the round that the interrupted run does not live to save

# The same on one device and on eight: `measure` on each mesh given, then the run that is stopped, then its resumption.
PROGRAM = """
import json, shutil, sys
import jax
import numpy as np
import pmc_jax
from pmc_jax import config as settings
from pmc_jax.distributed import meshes
from pmc_jax.sampling import generate
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.data.prompts import training_row
from pmc_jax.methods.settings import read_batch, read_training
from pmc_jax.training.batching import ExpectedRows, choose_packing
from pmc_jax.training.run import train_on
from pmc_jax.training.settings import make_recipe, updates_per_epoch
from pmc_jax.training.update import create_state, update


def flat(params):
    return np.concatenate([x.ravel() for x in jax.tree.leaves(meshes.gather(params))])


def train(checkpoint, task, config):
    text = generate.greedy_sampler(checkpoint, config).text
    forget, retain = (
        [training_row(text, r["question"], r["answer"], 200, group) for r in task[name]]
        for name, group in (("forget", 1), ("retain", 2))
    )
    updates = updates_per_epoch(len(forget), 0, config.train.batch_size)
    recipe = make_recipe(checkpoint.family, checkpoint.model, read_training(config), updates)
    state = create_state(checkpoint.params, recipe)
    packing = choose_packing(ExpectedRows((forget, retain), 1, 4), read_batch(config), meshes.mesh_of(state.params))
    step = lambda state, batch: update(checkpoint.model, recipe, state, batch)
    batches = [forget[i : i + 4] + retain[i : i + 4] for i in (0, 4, 0, 4)]
    state, updates = train_on(step, state, batches, packing)
    return {"losses": np.array([[u["forget_loss"], u["retain_loss"]] for u in updates]), "trained": flat(state.params)}


def measure(checkpoint, task, config):
    logits = meshes.gather(pmc_jax.logits(checkpoint, task["tokens"]))
    answers = pmc_jax.sample(checkpoint, task["questions"], **task["sample"])
    found = {"log_probs": np.asarray(jax.nn.log_softmax(logits)), "answers": np.array(answers)}
    found["loaded"] = flat(checkpoint.params)
    return found | train(checkpoint, task, config)


def run(checkpoint, task, config, folder, stop=None):
    def on_round(summary, seen, updates):
        samples.extend(answer for question in seen for answer in question["samples"])
        if summary["round"] == stop:
            raise KeyboardInterrupt

    rounds, samples = RoundCheckpointer(folder, 1), []
    try:
        calls = dict(rounds=rounds, on_round=on_round)
        unlearned, history = pmc_jax.unlearn(checkpoint, task["forget"], task["retain"], config, **calls)
    except KeyboardInterrupt:
        return
    finally:
        rounds.close()
    losses = [[h["forget_loss"], h["retain_loss"]] for h in history]
    return {"samples": np.array(samples), "losses": np.array(losses), "trained": flat(unlearned.params)}
"""
EIGHT = (
    """
import jax
jax.config.update("jax_num_cpu_devices", 8)
"""
    + PROGRAM
    + """
folder, task, out, stopped = sys.argv[1:]
task = json.loads(task)
config = settings.default()
config.update_from_flattened_dict(task["settings"])
for name in task["meshes"]:
    checkpoint = pmc_jax.load(folder, mesh=meshes.make_mesh(*map(int, name.split("x"))))
    np.savez(f"{out}/{name}.npz", **measure(checkpoint, task, config))
    pmc_jax.export(checkpoint, f"{out}/{name}")
    if name == "2x4":
        run(checkpoint, task, config, f"{out}/stopped", int(stopped))
    if name == "1x8":
        shutil.copytree(f"{out}/stopped", f"{out}/resumed")
        np.savez(f"{out}/resumed.npz", **run(checkpoint, task, config, f"{out}/resumed"))
"""
)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A checkpoint whose heads, width and vocabulary eight devices can share."""
    raw = LLAMA | dict(
        num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=8, eos_token_id=tokenizer.eos_token_id
    )
    return pretrained.export(pretrained.create(raw, tokenizer, seed=1), tmp_path_factory.mktemp("mesh") / "hf")


@pytest.fixture(scope="module")
def task(splits, forget_questions, small):
    flat = {k: v for k, v in settings.to_flat(small(CHANGES)).items() if k not in settings.DICTS}
    tokens = np.random.default_rng(0).integers(0, 512, (8, 64)).tolist()
    rows = dict(questions=forget_questions, forget=splits["forget20"], retain=splits["retain80"], tokens=tokens)
    return rows | dict(sample=HOT, settings=flat, meshes=MESHES)


@pytest.fixture(scope="module")
def one(folder, task, small, tmp_path_factory):
    """What one device finds, and the functions that find it."""
    scope: dict = {}
    exec(PROGRAM, scope)
    checkpoint = pmc_jax.load(str(folder))
    assert meshes.mesh_of(checkpoint.params).size == 1
    whole = scope["run"](checkpoint, task, small(CHANGES), tmp_path_factory.mktemp("whole"))
    return (
        scope["measure"](checkpoint, task, small(CHANGES)),
        whole,
        lambda where: scope["run"](checkpoint, task, small(CHANGES), where),
    )


@pytest.fixture(scope="module")
def eight(python, folder, task, tmp_path_factory):
    out = tmp_path_factory.mktemp("eight")
    done = python(EIGHT, folder, json.dumps(task), out, STOPPED)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_finds_what_one_device_finds(one, eight, mesh):
    here, there = one[0], np.load(eight / f"{mesh}.npz")
    assert (there["loaded"] == here["loaded"]).all()
    same = np.mean(there["answers"] == here["answers"])
    far = {name: np.max(np.abs(there[name] - here[name])) for name in ("log_probs", "losses", "trained")}
    print(f"{mesh}: {same:.2%} of {here['answers'].size} samples the same; apart at most {far}")
    assert same == 1.0 if mesh == "8x1" else same >= 0.999
    assert max(far.values()) < 1e-5, far
    assert np.max(np.abs(here["trained"] - here["loaded"])) > 1e-4


@pytest.mark.parity  # needs no torch, but longer than `make test` has
def test_a_trained_checkpoint_draws_the_same_on_a_mesh(shared, tmp_path):
    """Its logits are twenty times those of an untrained model, and so is what rounding changes."""
    folders = [f"--checkpoint={shared('checkpoints/tofu-tiny-llama-instruct')}", f"--data={shared('tofu-mini')}"]
    few = ["--meshes", "2x4", "--seeds=1", "--samples=2", f"--out={tmp_path / 'found.json'}"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/meshes.py", *folders, *few], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())["2x4"]
    assert found["samples"] == 80 and not found["differ"]
    assert found["apart"] < 1e-4 and found["within"] > 0.95


@pytest.mark.parametrize("mesh", MESHES)
def test_an_export_from_any_mesh_is_the_same_file(eight, folder, mesh):
    assert (eight / mesh / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("where", ["1x8", "one device"])
def test_a_run_on_2x4_goes_on_elsewhere(one, eight, tmp_path, where):
    _, whole, go_on = one
    if where == "1x8":
        found = np.load(eight / "resumed.npz")
    else:
        found = go_on(shutil.copytree(eight / "stopped", tmp_path / "rounds"))
    late = whole["samples"][-len(found["samples"]) :]
    assert 0 < len(found["samples"]) < len(whole["samples"]), "a part of the rounds is run again"
    far = {name: np.max(np.abs(found[name] - whole[name])) for name in ("losses", "trained")}
    print(
        f"2x4 to {where}: {np.mean(found['samples'] == late):.2%} of {len(late)} samples the same; apart at most {far}"
    )
    assert np.mean(found["samples"] == late) >= 0.999
    assert max(far.values()) < 1e-5, far


@pytest.mark.parametrize(("data", "model"), [(2, 1), (-1, 3), (1, 2)])
def test_a_mesh_of_other_devices_than_are_here(data, model):
    with pytest.raises(UserError, match=f"mesh.data={data}, mesh.model={model}: .* number of devices, which is 1"):
        meshes.make_mesh(data, model)


def test_a_mesh_that_does_not_divide_the_model_is_refused_on_the_command_line(
    command, tiny_folder, data_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")
    flags = [
        f"--config.model.path={tiny_folder}",
        f"--config.data.path={data_folder}",
        f"--workdir={tmp_path / 'run'}",
        "--config.mesh.model=4",
    ]
    flags += ["--config.data.forget=forget20", "--config.data.retain=retain80", "--config.train.batch_size=4"]
    said = subprocess.run(command("unlearn", *flags), capture_output=True, text=True)
    assert refused(said, "mesh.model=4: does not divide the model's 2 key/value heads; a divisor of 2 does")
    assert not (tmp_path / "run").exists()
