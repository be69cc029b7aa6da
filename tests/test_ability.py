"""General ability: perplexity of the package's passages, multiple choice of the user's own, fluent answers."""

import math

import numpy as np
import pytest
from test_choices import questions

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.data.passages import load_passages
from pmc_jax.errors import UserError
from pmc_jax.evaluate.ability import perplexity
from pmc_jax.evaluate.benchmark import Setup
from pmc_jax.evaluate.benchmarks import ability
from pmc_jax.evaluate.lines import table
from pmc_jax.sampling.generate import greedy_sampler
from pmc_jax.tracking.files import write_lines


def test_perplexity_is_over_all_tokens_together():
    measured = perplexity([2.0, 30.0, 1.0], [4, 10, 1])
    assert measured["mean"] == pytest.approx(math.exp(33 / 15)) and measured["rows"] == 3
    assert math.exp(2 / 4) <= measured["low"] < measured["mean"] < measured["high"] <= math.exp(30 / 10)
    assert perplexity([2.0], [4]) == {"mean": pytest.approx(math.exp(0.5)), "low": None, "high": None, "rows": 1}
    assert perplexity([], [])["mean"] is None


def test_passages_are_many_and_none_is_another():
    passages = load_passages()
    assert len(set(passages)) == len(passages) == 32 and all(30 < len(p.split()) < 70 for p in passages)


def test_the_numbers_of_a_model(tiny_checkpoint, small, tmp_path, monkeypatch):
    """Losses against log-softmax in numpy of one passage at a time; a file of choices; the lines."""
    monkeypatch.setattr(ability, "load_passages", lambda: load_passages()[:3])
    write_lines(tmp_path / "mine.jsonl", questions(6))
    config = small({"evaluate.choices": str(tmp_path / "mine.jsonl")})
    data = ability.load_choices(config)
    setup = Setup(None, config, {"ability": data}, greedy_sampler(tiny_checkpoint, config))
    measured = ability.measure_ability(setup)
    for passage, nll, count in zip(load_passages(), measured["nll"], measured["tokens"]):
        tokens_T = np.array(tiny_checkpoint.tokenizer(passage)["input_ids"])
        logits_TV = np.asarray(pmc_jax.logits(tiny_checkpoint, tokens_T[None]), np.float64)[0]
        log_p_TV = logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))
        assert count == len(tokens_T) - 1
        assert nll == pytest.approx(-log_p_TV[np.arange(count), tokens_T[1:]].sum(), rel=1e-4)
    assert measured["choices"]["rows"] == 6 and measured["choices"]["chance"] == 0.25

    result = {"now": ability.summarise(measured), "before": ability.summarise({"reason": "no other model"})}
    lines = {line.name: line for line in table(ability.VIEW, result).lines}
    assert list(lines) == ["Perplexity of unrelated text", "Multiple choice"]
    assert lines["Multiple choice"].note == "chance 0.250" and lines["Multiple choice"].rows == 6
    assert table(ability.VIEW, result).reasons == ["no other model"]
    del measured["choices"]
    bare = {"now": ability.summarise(measured), "before": ability.summarise(measured)}
    lines = {line.name: line for line in table(ability.VIEW, bare).lines}
    assert lines["Multiple choice, original model"].value is None
    assert lines["Multiple choice"].note == "no multiple choice was given (evaluate.choices)"


def test_where_the_choices_come_from(small, tmp_path):
    assert ability.load_choices(settings.default()) == {}
    write_lines(tmp_path / "test.jsonl", questions(2))
    given = {"evaluate.choices": str(tmp_path), "evaluate.choices_split": "test"}
    assert ability.load_choices(small(given)) == {"choices": questions(2)}
    with pytest.raises(UserError, match="evaluate.choices='nothing': no such folder"):
        ability.load_choices(small({"evaluate.choices": "nothing"}))
    write_lines(tmp_path / "test.jsonl", [{"question": "Who?", "choices": ["a", "b"], "answer": 2}])
    with pytest.raises(UserError, match="row 1: 'answer' is 2"):
        ability.load_choices(small(given))
