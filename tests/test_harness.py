"""The model behind lm-evaluation-harness's interface: by a stub of it, and by the package where it is installed."""

import importlib.util
import json
import math
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data.prompts import Template, make_text
from pmc_jax.errors import UserError
from pmc_jax.evaluate import harness
from pmc_jax.evaluate.benchmarks import harness as benchmark
from pmc_jax.evaluate.lines import table
from pmc_jax.sampling.generate import greedy_sampler

QUESTIONS = [
    {"question": "Where was Ada born?", "choices": ["Basel", "Lyon"], "answer": 0},
    {"question": "Where was Bob born?", "choices": ["Oslo", "the city of Turin"], "answer": 1},
    {"question": "What is a river?", "choices": ["water", "a stone"], "answer": 0},
]


@pytest.fixture
def sampler(tiny_checkpoint):
    return greedy_sampler(tiny_checkpoint, settings.default())


def log_p_of(checkpoint, tokens):
    """log p of each token after the first, and whether it is the likeliest, by numpy."""
    logits_TV = np.asarray(pmc_jax.logits(checkpoint, np.array(tokens)[None]), np.float64)[0, :-1]
    log_p_TV = logits_TV - logits_TV.max(-1, keepdims=True)
    log_p_TV -= np.log(np.exp(log_p_TV).sum(-1, keepdims=True))
    return log_p_TV[np.arange(len(tokens) - 1), tokens[1:]], log_p_TV.argmax(-1) == tokens[1:]


class StubLM:
    """What `lm_eval.api.model.LM` promises its children."""

    rank, world_size = 0, 1


def stub(asked):
    """A module as lm_eval is, whose one task is multiple choice, generation and a whole text."""

    def simple_evaluate(model, tasks, limit, log_samples, bootstrap_iters):
        assert isinstance(model, StubLM)
        pairs = [(row["question"], f" {choice}") for row in QUESTIONS for choice in row["choices"]]
        requests = {
            "loglikelihood": pairs,
            "loglikelihood_rolling": [(row["question"],) for row in QUESTIONS],
            "generate_until": [(row["question"], {"until": ["\n\n"], "max_gen_toks": 8}) for row in QUESTIONS],
        }
        for name, arguments in requests.items():
            asked[name] = getattr(model, name)([SimpleNamespace(args=own) for own in arguments])
            assert getattr(model, name)([]) == []
        sums = np.array([value for value, _ in asked["loglikelihood"]]).reshape(-1, 2)
        right = [float(row["answer"] == best) for row, best in zip(QUESTIONS, sums.argmax(1))]
        values = {
            "alias": "toy",
            "acc,none": np.mean(right),
            "acc_stderr,none": 0.1,
            "em,strict": 1,
            "f1,none": math.nan,
        }
        values |= {"em_stderr,strict": "N/A"}
        return {"results": dict.fromkeys(tasks, values), "n-samples": {tasks[0]: {"effective": 3}}}

    module = types.ModuleType("lm_eval")
    module.__version__, module.simple_evaluate, module.api = "0", simple_evaluate, types.ModuleType("lm_eval.api")
    module.api.model = types.ModuleType("lm_eval.api.model")
    module.api.model.LM = StubLM
    return module


@pytest.fixture
def stubbed(monkeypatch):
    """The stub in the place of the package; {method: its answers}."""
    asked = {}
    module = stub(asked)
    for name, part in {"lm_eval": module, "lm_eval.api": module.api, "lm_eval.api.model": module.api.model}.items():
        monkeypatch.setitem(sys.modules, name, part)
    return asked


def test_the_command(cli, tiny_folder, data_folder, tiny_checkpoint, stubbed, tmp_path):
    """Three requests answered in order; the harness's numbers are lines of the result."""
    given = [f"--config.model.path={tiny_folder}", f"--config.data.path={data_folder}", "--config.data.forget=forget20"]
    given += ["--config.data.retain=retain80", "--config.evaluate.leak_samples=0", "--config.evaluate.relearn_rows=0"]
    given += ["--config.evaluate.benchmarks=quality", "--config.evaluate.max_new_tokens=8"]
    said = cli("evaluate", *given, "--config.evaluate.harness=toy", f"--workdir={tmp_path / 'run'}")
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())["harness"]
    assert result["toy"]["acc"]["rows"] == 3 and result["toy"]["acc"]["stderr"] == 0.1
    assert result["toy"]["em, strict"] == {"value": 1.0, "stderr": None, "rows": 3} and "f1" not in result["toy"]
    lines = table(benchmark.VIEW, result).lines
    assert [line.hint for line in lines] == ["acc", "em, strict"] and "lm-evaluation-harness" in said.out
    assert lines[0].low == pytest.approx(lines[0].value - 0.196) and lines[1].low is None

    tokenizer = tiny_checkpoint.tokenizer
    pairs = [(row["question"], f" {choice}") for row in QUESTIONS for choice in row["choices"]]
    for (context, continuation), (value, greedy) in zip(pairs, stubbed["loglikelihood"], strict=True):
        tokens, start = tokenizer(context + continuation)["input_ids"], len(tokenizer(context)["input_ids"])
        log_p_T, hits_T = log_p_of(tiny_checkpoint, tokens)
        assert value == pytest.approx(log_p_T[start - 1 :].sum(), abs=1e-3) and greedy == all(hits_T[start - 1 :])
    assert all(isinstance(text, str) for text in stubbed["generate_until"])
    assert all(value < 0 for value in stubbed["loglikelihood_rolling"])


@pytest.mark.parametrize(
    ("context", "continuation"),
    [("", "Ada"), ("Where ", "is Ada"), ("  ", "x"), ("Where is Ada", ""), ("Where?\n", "In")],
)
def test_pairs_are_split_as_the_harness_does(sampler, context, continuation):
    """White space at the end of a context belongs to the continuation; a token always stands before the labels."""
    tokenizer, row = sampler.text.tokenizer, harness.pair_row(sampler.text, context, continuation)
    if context.strip():
        assert row.tokens == tokenizer(context + continuation)["input_ids"]
        assert row.tokens[: row.start] == tokenizer(context.rstrip())["input_ids"]
    labels = tokenizer.decode(row.tokens[row.start :])
    assert labels.strip() == (context[len(context.rstrip()) :] + continuation).strip() and row.start >= 1


def test_a_long_context_is_cut_from_its_beginning(sampler, monkeypatch):
    whole = harness.pair_row(sampler.text, "word " * 40, "end")
    monkeypatch.setattr(harness, "WINDOW", 16)
    row = harness.pair_row(sampler.text, "word " * 40, "end")
    assert len(row.tokens) == 17 and row.tokens == whole.tokens[-17:]
    assert row.tokens[row.start :] == whole.tokens[whole.start :]


@pytest.mark.parametrize("window", [1, 3, 4, 10, 11])
def test_each_token_of_a_text_is_predicted_once(window):
    """The example of the harness's own documentation, for windows of other sizes too."""
    tokens = list(range(10))
    rows = harness.windows(tokens, first=99, window=window)
    assert [label for row in rows for label in row.tokens[row.start :]] == tokens
    assert all(len(row.tokens) <= window + 1 for row in rows) and rows[0].tokens[0] == 99
    assert all(len(row.tokens) == min(window, 10) + 1 for row in rows), "every window is full"
    if window == 4:
        assert [row.tokens for row in rows] == [[99, 0, 1, 2, 3], [3, 4, 5, 6, 7], [5, 6, 7, 8, 9]]
        assert rows[-1].tokens[rows[-1].start :] == [8, 9]


def test_texts_are_written_up_to_an_end(tiny_checkpoint, sampler, splits):
    """By a greedy loop over the logits; two kinds of options at once."""
    contexts = [sampler.text.tokenizer.decode(sampler.text.prompt(row["question"])) for row in splits["full"][:3]]
    options = [{"max_gen_toks": 12}, {"max_gen_toks": 12, "until": " the "}, {"max_gen_toks": 3, "until": ["zzz"]}]
    ours = harness.generated(sampler, list(zip(contexts, options)))
    for context, option, text in zip(contexts, options, ours, strict=True):
        tokens = harness.raw_tokens(sampler.text, context)
        start = len(tokens)
        while len(tokens) < start + option["max_gen_toks"] and tokens[-1] not in sampler.text.end_tokens:
            tokens.append(int(np.asarray(pmc_jax.logits(tiny_checkpoint, np.array(tokens)[None]))[0, -1].argmax()))
        wanted = sampler.text.tokenizer.decode(tokens[start:], skip_special_tokens=True)
        assert text == harness.until(wanted, option.get("until"))
    drawn = {"do_sample": True, "temperature": 1.5, "max_gen_toks": 12}
    assert harness.sampling_of(drawn) == (12, 1.5, 1.0, 50) and harness.sampling_of({}) == (256, 0.0, 1.0, 0)
    assert harness.generated(sampler, [(contexts[0], drawn)]) == harness.generated(sampler, [(contexts[0], drawn)])
    assert harness.until("one two", ["", "three", "two"]) == "one " and harness.until("one", None) == "one"


def test_without_the_package(cli, tiny_folder, data_folder, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    given = [f"--config.model.path={tiny_folder}", f"--config.data.path={data_folder}", "--config.data.forget=forget20"]
    given += ["--config.data.retain=retain80", f"--workdir={tmp_path / 'run'}", "--config.evaluate.harness=arc_easy"]
    said = cli("evaluate", *given)
    assert said.code == 2 and "pip install 'pmc-jax[harness]'" in said.err and len(said.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="evaluate.harness is empty"):
        benchmark.load_tasks(settings.default())


def test_a_begin_token_stands_before_all(tiny_checkpoint, tiny_phi):
    for checkpoint in (tiny_checkpoint, tiny_phi):
        text = make_text(checkpoint.tokenizer, Template(style="plain"), checkpoint.end_tokens)
        begin = checkpoint.tokenizer.bos_token_id
        assert harness.before_all(text) == (begin if begin is not None else text.end_token)


@pytest.mark.skipif(not importlib.util.find_spec("lm_eval"), reason="lm-evaluation-harness is not installed")
def test_a_task_file_in_the_harness_itself(cli, tiny_folder, data_folder, tiny_checkpoint, tmp_path):
    """A task of the user's own: its accuracy is that of likelihoods by numpy."""
    rows, task = tmp_path / "rows.jsonl", tmp_path / "toy.yaml"
    rows.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    task.write_text(f"""
task: toy
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
""")
    given = [f"--config.model.path={tiny_folder}", f"--config.data.path={data_folder}", "--config.data.forget=forget20"]
    given += ["--config.data.retain=retain80", "--config.evaluate.leak_samples=0", "--config.evaluate.relearn_rows=0"]
    given += ["--config.evaluate.benchmarks=quality", "--config.evaluate.max_new_tokens=8"]
    said = cli("evaluate", *given, f"--config.evaluate.harness={task}", f"--workdir={tmp_path / 'run'}")
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())["harness"]
    tokenizer, right = tiny_checkpoint.tokenizer, []
    for row in QUESTIONS:
        start, sums = len(tokenizer(row["question"])["input_ids"]), []
        for choice in row["choices"]:
            tokens = tokenizer(f"{row['question']} {choice}")["input_ids"]
            sums.append(log_p_of(tiny_checkpoint, tokens)[0][start - 1 :].sum())
        right.append(float(np.argmax(sums) == row["answer"]))
    assert result["toy"]["acc"]["value"] == pytest.approx(np.mean(right)) and result["toy"]["acc"]["rows"] == 3
