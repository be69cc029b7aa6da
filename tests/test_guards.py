"""A run stops where its numbers go wrong, and keeps the last good round."""

import json

import jax
import numpy as np
import pytest
from lines import refused
from test_resume import arguments

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.training import run as training_run
from pmc_jax.training.checkpoint import DamagedRound, RoundCheckpointer
from pmc_jax.training.digest import digest


@pytest.mark.parametrize("metric", ["loss", "grad_norm"])
def test_a_number_that_is_none_stops_the_run_and_keeps_the_rounds_before(
    tiny_checkpoint, splits, small, tmp_path, monkeypatch, metric
):
    """The evidence is named: round, batch, loss, norm of the gradient."""
    original, calls = training_run.train_on, iter(range(99))

    def broken(*arguments):
        state, updates = original(*arguments)
        if next(calls) == 2:
            updates[1][metric] = float("inf")
        return state, updates

    monkeypatch.setattr(training_run, "train_on", broken)
    rounds = RoundCheckpointer(tmp_path / "rounds", keep=2)
    with pytest.raises(UserError, match="round 2, batch 1: .*inf"):
        pmc_jax.unlearn(tiny_checkpoint, splits["forget20"], splits["retain80"], small(), rounds=rounds)
    rounds.close()
    assert RoundCheckpointer(tmp_path / "rounds", read_only=True).all() == [0, 1]


def test_a_run_below_its_floor_goes_back_to_the_last_good_round(cli, tmp_path, tiny_folder, data_folder, monkeypatch):
    words = [*arguments(tiny_folder, data_folder, tmp_path / "run"), "--config.train.epochs=2"]
    words += ["--config.evaluate.every=1"]
    assert refused(cli(*words, "--config.guard.min_utility=5", "--config.evaluate.every=0"), "evaluate.every")
    from pmc_jax.runs import unlearn as verb

    original, utilities = verb.evaluate_on, iter([90.0, 80.0, 70.0, 30.0])

    def lowered(*arguments, **options):
        evaluation = original(*arguments, **options)
        value = next(utilities, 75.0)

        class Lowered(type(evaluation)):
            def summary(self):
                return super().summary() | {"utility": value}

        return Lowered(*evaluation)

    monkeypatch.setattr(verb, "evaluate_on", lowered)
    said = cli(*words, "--config.guard.min_utility=50")
    assert said.code == 0 and "utility fell to 30.0 in round 2" in " ".join(said.out.split()), said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["stopped"] == {"round": 2, "utility": 30.0, "min_utility": 50.0, "kept_round": 1}
    assert result["rounds"] == 2
    said = cli("export", f"--workdir={tmp_path / 'run'}", "--round=1", f"--output={tmp_path / 'out'}")
    kept = tmp_path / "run" / "hf" / "model.safetensors"
    assert said.code == 0 and (tmp_path / "out" / "model.safetensors").read_bytes() == kept.read_bytes()


def tree(seed):
    rng = np.random.default_rng(seed)
    return {
        "a": rng.normal(size=(5, 7)).astype("float32"),
        "b": [np.int32(3), rng.normal(size=11).astype(jax.numpy.bfloat16)],
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_digest_sees_every_bit_and_every_place(seed):
    rng, arrays = np.random.default_rng(seed), jax.tree.map(jax.numpy.asarray, tree(seed))
    number, finite = digest(arrays)
    assert finite and number == digest(jax.tree.map(jax.numpy.array, arrays))[0]
    for _ in range(10):
        changed = tree(seed)
        leaf = changed["a"] if rng.random() < 0.5 else changed["b"][1]
        bits = leaf.reshape(-1).view(np.uint8)
        bits[rng.integers(len(bits))] ^= 1 << rng.integers(8)
        assert digest(jax.tree.map(jax.numpy.asarray, changed))[0] != number
    swapped = tree(seed)
    swapped["a"][[0, 1]] = swapped["a"][[1, 0]]
    assert digest(jax.tree.map(jax.numpy.asarray, swapped))[0] != number
    swapped["a"][0, 0] = np.nan
    assert not digest(jax.tree.map(jax.numpy.asarray, swapped))[1]


def test_a_flipped_bit_in_a_saved_round_is_found_and_the_one_before_taken(tmp_path, tiny_checkpoint, capsys):
    state = tiny_checkpoint.params
    rounds = RoundCheckpointer(tmp_path / "rounds", keep=3)
    for number in range(3):
        rounds.save(number, jax.tree.map(lambda x: x + number, state), {"history": [number]})  # noqa: B023
    rounds.close()
    data = max((tmp_path / "rounds" / "2").rglob("d/*"), key=lambda file: file.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 4
    data.write_bytes(bytes(content))
    reader = RoundCheckpointer(tmp_path / "rounds", read_only=True)
    with pytest.raises(DamagedRound, match="rounds/2: this round is damaged"):
        reader.restore(2, like=state)
    assert reader.restore_newest(like=state)[1] == {"history": [1]} and reader.all() == [0, 1, 2]
    writer = RoundCheckpointer(tmp_path / "rounds", keep=3)
    _, notes = writer.restore_newest(like=state)
    assert notes == {"history": [1]} and writer.all() == [0, 1] and "going on from" in capsys.readouterr().err
    assert (tmp_path / "damaged" / "rounds_2").is_dir(), "nothing is deleted"
    writer.save(2, state, {"history": [2]})
    writer.close()


@pytest.mark.parametrize("how", ["empty", "missing"])
def test_a_damaged_round_is_told_of_in_one_line(tmp_path, tiny_checkpoint, capfd, how):
    """The libraries below print tracebacks of their own for it."""
    state = tiny_checkpoint.params
    rounds = RoundCheckpointer(tmp_path / "rounds", keep=3)
    for number in range(2):
        rounds.save(number, state, {"history": [number]})
    rounds.close()
    data = max((tmp_path / "rounds" / "1").rglob("d/*"), key=lambda file: file.stat().st_size)
    data.write_bytes(b"") if how == "empty" else data.unlink()
    reader = RoundCheckpointer(tmp_path / "rounds", read_only=True)
    capfd.readouterr()
    assert reader.restore_newest(like=state)[1] == {"history": [0]}
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and said.startswith("pmc-jax: ") and "going on from" in said, said


def test_a_saved_round_holds_no_pickle(tmp_path, tiny_checkpoint):
    """Orbax's files, metadata included, are JSON and numbers."""
    rounds = RoundCheckpointer(tmp_path / "rounds")
    rounds.save(0, tiny_checkpoint.params, {"history": []})
    rounds.close()
    for file in (tmp_path / "rounds").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert file.suffix not in (".pkl", ".pickle", ".pt", ".bin")
            assert not (content[:1] == b"\x80" and content[-1:] == b"."), file
            if file.name.startswith("_") or file.parent.name == "metadata":
                assert isinstance(json.loads(content), dict), file
