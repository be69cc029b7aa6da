"""Every method of the table through `unlearn`, on an untrained model: two updates, resumed, and on two devices."""

import json
import shutil

import jax
import numpy as np
import pytest
from test_methods import same_bits, without_seconds
from tiny import LLAMA

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.methods.alternates import MADE_UP, refusal_rows
from pmc_jax.methods.schedule import Schedule
from pmc_jax.methods.unlearn import check_inputs
from pmc_jax.models import pretrained
from pmc_jax.training.checkpoint import RoundCheckpointer
from pmc_jax.training.objectives import OBJECTIVES, Moment
from pmc_jax.training.objectives.distribution import raise_multiplier

OPTIONS = {"rmu": "layer=0", "pdu": "warmup_epochs=0", "scrub": "forget_epochs=1"}
RIVALS = [name for name in OBJECTIVES if name not in ("pmc", "cross_entropy")]
CHANGES = {"train.epochs": 2, "train.batch_size": 8, "train.learning_rate": 1e-3, "train.warmup_epochs": 0.0}


def settings_of(method):
    return CHANGES | {"method": method, "method_options": OPTIONS.get(method, "")}


@pytest.fixture(scope="module")
def checkpoint(tokenizer):
    """One layer of random weights: programs of many methods are compiled."""
    raw = LLAMA | dict(num_hidden_layers=1, eos_token_id=tokenizer.eos_token_id)
    return pretrained.create(raw, tokenizer, seed=1)


@pytest.fixture(scope="module")
def unlearn(checkpoint, splits, small):
    """unlearn(changes, rounds) -> (checkpoint, history, metrics of all updates); eight retain rows."""

    def run(changes, rounds=None, start=checkpoint):
        updates = []
        calls = dict(rounds=rounds, on_round=lambda line, seen, own: updates.extend(own))
        found = pmc_jax.unlearn(start, splits["forget20"], splits["retain80"][:8], small(changes), **calls)
        return *found, updates

    return run


@pytest.fixture(scope="module")
def on_two(python, checkpoint, splits, small, tmp_path_factory):
    """{method: losses of its rounds} on a mesh of two devices, each with its own rows."""
    folder = pretrained.export(checkpoint, tmp_path_factory.mktemp("rivals") / "hf")
    changes = small().to_json()
    task = {name: settings_of(name) for name in RIVALS}
    rows = {"forget": splits["forget20"], "retain": splits["retain80"][:8]}
    done = python(ON_TWO, folder, changes, json.dumps(task), json.dumps(rows))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


ON_TWO = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import json, sys
import pmc_jax
from pmc_jax import config as settings
from pmc_jax.distributed import meshes
folder, base, task, rows = sys.argv[1], *map(json.loads, sys.argv[2:])
losses = {}
for method, changes in task.items():
    config = settings.default()
    config.update(base)
    config.update_from_flattened_dict(changes)
    checkpoint = pmc_jax.load(folder, mesh=meshes.make_mesh(2, 1))
    _, history = pmc_jax.unlearn(checkpoint, rows["forget"], rows["retain"], config)
    losses[method] = [{k: v for k, v in line.items() if "loss" in k} for line in history]
print(json.dumps(losses))
"""


@pytest.mark.parametrize("method", RIVALS)
def test_a_method_learns_resumes_and_is_the_same_on_a_mesh(unlearn, checkpoint, on_two, tmp_path, method):
    rounds = RoundCheckpointer(tmp_path / "rounds", keep=2)
    whole, history, updates = unlearn(settings_of(method), rounds)
    rounds.close()
    assert not same_bits(whole, checkpoint) and all(np.isfinite(x).all() for x in jax.tree.leaves(whole.params))
    assert len(history) == 2 and len(updates) >= 2 and history[0]["loss"] != history[1]["loss"]
    shutil.rmtree(tmp_path / "rounds" / "1")  # as if it had been stopped before
    rounds = RoundCheckpointer(tmp_path / "rounds")
    resumed, its_history, its_updates = unlearn(settings_of(method), rounds)
    rounds.close()
    assert same_bits(resumed, whole) and without_seconds(its_history) == without_seconds(history)
    assert its_updates == updates[-len(its_updates) :] and 0 < len(its_updates) < len(updates)
    for line, other in zip(history, on_two[method], strict=True):
        assert {name: line[name] for name in other} == pytest.approx(other, rel=2e-4)


def test_both_kinds_of_retain_term_and_none(unlearn):
    _, history, _ = unlearn(settings_of("undial"))
    assert "retain_loss" not in history[0], "without a retain term there are no retain rows"
    plain, kl = (
        unlearn(settings_of("gradient_difference") | {"method_options": options})
        for options in ("", "retain_weight=0,kl_weight=1")
    )
    first, second = kl[2]
    assert first["loss"] == pytest.approx(-first["forget_loss"], rel=1e-6), "no divergence from the start at the start"
    assert second["loss"] > -second["forget_loss"] and not same_bits(plain[0], kl[0])


def test_the_start_may_be_given_away(checkpoint, splits, small):
    """What a method compares with is a copy of its own."""
    kept, given = (
        pmc_jax.unlearn(
            checkpoint.replace(params=jax.tree.map(lambda x: x + 0, checkpoint.params)),
            *(splits["forget20"], splits["retain80"][:8], small(settings_of("undial"))),
            keep_start=keep,
        )[0]
        for keep in (True, False)
    )
    assert same_bits(kept, given)


@pytest.mark.parametrize("rank", [0, 2])
def test_the_task_vector_is_taken_off(unlearn, checkpoint, rank):
    """start - 5 * (trained - start), also as adapters."""
    lora = {"lora.rank": rank}
    trained, _, _ = unlearn(settings_of("cross_entropy") | lora)
    negated, _, _ = unlearn(settings_of("task_vector") | lora)
    for start, there, result in zip(*(jax.tree.leaves(c.params) for c in (checkpoint, trained, negated))):
        np.testing.assert_allclose(result - start, -5 * (there - start), atol=2e-6)
    if rank:
        for key, sides in trained.adapters[1].items():
            np.testing.assert_array_equal(negated.adapters[1][key]["b"], -5 * sides["b"])


def test_adapters_compare_with_the_weights_under_them(unlearn):
    _, history, updates = unlearn(settings_of("scrub") | {"lora.rank": 2})
    assert updates[0]["loss"] == pytest.approx(0, abs=1e-6), "adapters begin at the start model"
    assert [line["forget_loss"] > 0 for line in history if "forget_loss" in line] == [True]


def test_scrub_goes_over_its_rows_in_turns(unlearn):
    changes = settings_of("scrub") | {"train.batch_size": 4, "train.epochs": 3, "method_options": "forget_epochs=2"}
    _, history, updates = unlearn(changes)
    forget, retain = ([bool(u[f"{name}_loss"]) for u in updates] for name in ("forget", "retain"))
    assert forget == [True, True, False, False] * 2 + [False] * 2 and retain == [not x for x in forget]
    assert ["forget_loss" in line for line in history] == [True, True, False]


def test_the_multiplier_follows_the_retain_loss(unlearn):
    changes = settings_of("pdu") | {"train.epochs": 4, "method_options": "warmup_epochs=2,multiplier=2,step=0.5"}
    _, _, updates = unlearn(changes)
    values = [u["multiplier"] for u in updates]
    assert values[:3] == [2, 2, 2]
    assert values[3] == pytest.approx(2 + 0.5 * (updates[2]["retain_loss"] - 0.3))
    hyper = {"multiplier": 1.0, "step": 5.0, "allowed": 0.3, "warmup_epochs": 0}
    assert raise_multiplier(hyper, Moment(None, 0.0, 0.0))["multiplier"] == 0, "never below 0"


def test_a_layer_that_the_model_does_not_have(checkpoint, splits, small):
    rows = splits["forget20"], splits["retain80"]
    with pytest.raises(UserError, match=r"looks at layer 7; the model has layers 0 to 0; .* method_options=layer=N"):
        check_inputs(checkpoint, small({"method": "rmu"}), *rows)
    check_inputs(checkpoint, small(settings_of("rmu")), *rows)


def test_idk_needs_no_answers(checkpoint, splits, small, forget_questions):
    changes = settings_of("idk") | {"train.epochs": 1}
    with_answers, without = (
        pmc_jax.unlearn(checkpoint, forget, splits["retain80"][:8], small(changes))[0]
        for forget in (splits["forget20"], forget_questions)
    )
    assert same_bits(with_answers, without)


def test_refusals_are_drawn_anew_each_epoch():
    refusals = tuple("abcdef")
    rows, index_EQ = refusal_rows(lambda q, text: (q, text), Schedule(7, 0, 20, 3), refusals)
    assert index_EQ.shape == (20, 7) and len(set(rows)) == len(rows) <= 7 * 6
    drawn = [[rows[i] for i in epoch] for epoch in index_EQ]
    assert all([q for q, _ in epoch] == list(range(7)) for epoch in drawn)
    assert len({tuple(epoch) for epoch in map(tuple, drawn)}) > 15 and {text for _, text in rows} == set(refusals)


def test_made_up_answers_are_several_a_question(unlearn):
    _, _, updates = unlearn(settings_of("altpo") | {"train.epochs": 1})
    assert len(updates) == MADE_UP, "eight questions an update, five alternates of each"
