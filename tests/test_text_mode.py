"""Raw text through the whole loop: a model that has passages by heart loses those of one side and keeps the others."""

import json
import subprocess

import numpy as np
import pytest
from passages import passages
from test_resume import outcome
from tiny import LLAMA

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data.windows import cut_rows
from pmc_jax.errors import UserError
from pmc_jax.sampling.generate import greedy_sampler, round_sampler
from pmc_jax.tracking.files import write_lines

FORGET, RETAIN = passages(8, 1), passages(8, 2)
TEXT = {
    "data.text_window": 16,
    "sample.max_new_tokens": 32,
    "sample.num_samples": 10,
    "sample.temperature": 1.6,
    "pmc.reward": "rouge_2_recall",
    "train.max_length": 96,
    "train.batch_size": 8,
    "train.learning_rate": 4e-3,
    "train.epochs": 8,
    "evaluate.leak_samples": 0,
    "evaluate.relearn_rows": 0,
}


@pytest.fixture(scope="module")
def text_config():
    config = settings.default()
    config.update_from_flattened_dict(TEXT)
    return config


@pytest.fixture(scope="module")
def blank():
    """A Llama with fresh parameters, and a tokenizer of these passages."""
    from pmc_jax.data.tokenizer import train_tokenizer
    from pmc_jax.models import pretrained

    tokenizer = train_tokenizer([{"text": text} for text in FORGET + RETAIN], 512)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return pretrained.create(LLAMA | ids, tokenizer, seed=0)


@pytest.fixture(scope="module")
def knows_both(blank, text_config):
    """The same after both sides' passages, learnt token by token, each window by itself."""
    from pmc_jax.methods.finetune import finetune

    config = settings.changed(text_config, {"train.epochs": 60, "train.learning_rate": 5e-3})
    windows = cut_rows([{"text": text} for text in FORGET + RETAIN], blank.tokenizer, 16, 32)
    return finetune(blank, [{"text": row["question"] + row["answer"]} for row in windows], config)[0]


@pytest.fixture(scope="module")
def folder(knows_both, tmp_path_factory):
    """The checkpoint, and both sides as files."""
    folder = tmp_path_factory.mktemp("text")
    pmc_jax.export(knows_both, folder / "model")
    write_lines(folder / "forget.jsonl", [{"text": text} for text in FORGET])
    (folder / "retain.txt").write_text("\n\n".join(RETAIN))
    return folder


def continued(checkpoint, config, texts):
    """The share of windows that greedy decoding continues word for word."""
    rows = cut_rows([{"text": text} for text in texts], checkpoint.tokenizer, 16, 32)
    said = greedy_sampler(checkpoint, config).answers([row["question"] for row in rows])
    return np.mean([row["answer"].startswith(answer) for row, (answer,) in zip(rows, said)])


def test_one_side_is_lost_and_the_other_stays(knows_both, text_config):
    assert min(continued(knows_both, text_config, side) for side in (FORGET, RETAIN)) > 0.85
    unlearned, history = pmc_jax.unlearn(knows_both, FORGET, RETAIN, text_config)
    assert history[-1]["stored_score"] < 0.05 and history[-1]["solved"] > 0.9, "this reward reaches 0"
    assert continued(unlearned, text_config, FORGET) < 0.15
    assert continued(unlearned, text_config, RETAIN) > 0.75


def test_every_continuation_has_one_length_and_no_end(blank, text_config):
    """Of an untrained model, which says its end token and every other one about as often."""
    sampler = round_sampler(blank, settings.changed(text_config, {"sample.top_k": 0, "sample.num_samples": 40}))
    special = {*sampler.text.end_tokens, *blank.tokenizer.all_special_ids}
    prompts = [sampler.text.prompt(text) for text in ("Ilse came", "When the river froze, 12 boats")]
    for changes in ({}, {"top_k": 50}, {"top_p": 1.0}, {"temperature": 0.0, "num_samples": 1}):
        drawn = sampler.with_sampling(**changes).tokens_after(prompts, ["a", "b"])
        for tokens in (t for samples in drawn for t in samples):
            assert len(tokens) == 32 and not special & set(tokens)
    free = sampler.with_sampling(banned=()).tokens_after(prompts, ["a", "b"])
    assert special & {t for samples in free for tokens in samples for t in tokens}


def test_rows_have_no_end_label(knows_both, text_config):
    """Labels of forget and retain rows are continuations: text, not longer than was sampled, no end token."""
    from pmc_jax.methods.passages import windows_of
    from pmc_jax.methods.sources import make_source
    from pmc_jax.tracking.timing import Clock

    forget, retain = (
        windows_of([{"text": t} for t in side], knows_both.tokenizer, text_config) for side in (FORGET, RETAIN)
    )
    source = make_source(knows_both, text_config, forget, retain, None)
    with Clock() as clock:
        made = source.round(0, source.begin(None, clock), lambda: knows_both, clock)
    rows = [row for batch in made.batches for row in batch]
    assert len(rows) == 2 * len(forget)
    for row in rows:
        labels = row.tokens[row.start :]
        assert labels and not set(source.sampler.text.end_tokens) & set(labels)
        assert len(labels) <= 32 + (8 if row.group == 2 else 0)
    truths = {row["question"]: row["answer"] for row in retain}
    text = source.sampler.text
    kept = [row for row in rows if row.group == 2]
    assert all(truths[text.read(row.tokens[: row.start])] == text.read(row.tokens[row.start :]) for row in kept)


def words(folder, run, **changes):
    flags = {"model.path": folder / "model", "data.forget_file": folder / "forget.jsonl"}
    flags |= {"data.retain_file": folder / "retain.txt", **TEXT, "train.epochs": 3, **changes}
    return ["unlearn", "--config=text", f"--workdir={run}", *(f"--config.{k}={v}" for k, v in flags.items())]


@pytest.mark.parity
def test_from_files_with_adapters_and_resumed(cli, command, folder, tmp_path):
    """A run that was stopped between two rounds ends as one that was not; its page and its numbers are there."""
    from held import held, until

    adapters = {"lora.rank": 4, "train.learning_rate": 1e-2, "pmc.questions_per_round": 8}
    said = cli(*words(folder, tmp_path / "whole", **adapters))
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["before"]["forget"] > 0.9 and result["after"]["forget"] < result["before"]["forget"]
    assert set(result["data"]) >= {"forget", "retain"} and "world_facts" not in result["data"]
    assert (tmp_path / "whole" / "hf" / "adapter").is_dir() and (tmp_path / "whole" / "report.html").exists()
    run = tmp_path / "stopped"
    process = subprocess.Popen(
        held(words(folder, run, **adapters), tmp_path / "marker", run, "round_00002.jsonl", 2),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until((tmp_path / "marker").exists, [process])
    process.kill()
    process.wait()
    assert subprocess.run(command(*words(folder, run, **adapters)), capture_output=True).returncode == 0
    assert outcome(run) == outcome(tmp_path / "whole")


EIGHT = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
import pmc_jax
from pmc_jax import config as settings
from pmc_jax.distributed import meshes
task = json.loads(sys.argv[1])
config = settings.default()
config.update_from_flattened_dict(task["settings"])
made = {}
for shape in ((8, 1), (4, 2)):
    checkpoint = pmc_jax.load(task["model"], mesh=meshes.make_mesh(*shape))
    _, history = pmc_jax.unlearn(checkpoint, task["forget"], task["retain"], config)
    made[str(shape)] = history
print(json.dumps(made))
"""


@pytest.mark.parity
def test_meshes_agree_with_one_device(python, folder, text_config):
    config = settings.changed(text_config, {"train.epochs": 2, "train.learning_rate": 1e-4})
    _, history = pmc_jax.unlearn(pmc_jax.load(folder / "model"), FORGET, RETAIN, config)
    task = {"model": str(folder / "model"), "forget": FORGET, "retain": RETAIN, "settings": settings.to_flat(config)}
    said = python(EIGHT, json.dumps(task))
    assert said.returncode == 0, said.stderr
    for shape, other in json.loads(said.stdout.splitlines()[-1]).items():
        for name in ("stored_score", "forget_loss", "retain_loss"):
            assert [h[name] for h in other] == pytest.approx([h[name] for h in history], abs=2e-3), (shape, name)


def test_fine_tuning_reads_every_token_once(blank, text_config):
    from pmc_jax.methods.finetune import example_rows
    from pmc_jax.sampling.generate import text_of

    text = text_of(blank, text_config)
    config = settings.changed(text_config, {"train.max_length": 20, "data.text_window": 8, "sample.max_new_tokens": 8})
    rows = example_rows(text, [{"text": t} for t in FORGET[:3]], config)
    labels = [token for row in rows for token in row.tokens[row.start :]]
    assert labels == [token for t in FORGET[:3] for token in text.prompt(t)[1:]]
    assert max(len(row.tokens) for row in rows) == 20 and {row.start for row in rows} == {1}


def test_what_is_no_text_is_refused(blank, text_config):
    with pytest.raises(UserError, match="no passage has"):
        pmc_jax.unlearn(blank, ["a"], RETAIN, settings.changed(text_config, {"train.batch_size": 1}))
    with pytest.raises(UserError, match="'text'|row 1"):
        pmc_jax.unlearn(blank, [{"words": "a b"}], RETAIN, text_config)


@pytest.mark.parametrize("reward", ["rouge_2_recall", "longest_common_run"])
def test_pruning_keeps_the_same_continuations(knows_both, text_config, reward):
    changes = {"train.epochs": 1, "pmc.reward": reward, "pmc.measure_every": 1}
    kept = []
    for prune in (True, False):
        config = settings.changed(text_config, changes | {"pmc.prune_candidates": prune})
        seen = []
        pmc_jax.unlearn(knows_both, FORGET, RETAIN, config, on_round=lambda s, asked, u, seen=seen: seen.extend(asked))
        kept.append([(row["question"], row["samples"][row["chosen"]]) for row in seen])
    assert kept[0] == kept[1] and len(kept[0]) > 8
