"""RWKU on files of its schema: every number against rouge-score, scipy, nltk and plain numpy."""

import json
import statistics
import zlib
from collections import Counter

import datasets
import nltk
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer

import pmc_jax
from pmc_jax import config as settings
from pmc_jax.errors import UserError
from pmc_jax.evaluate import rwku
from pmc_jax.evaluate.benchmark import Setup
from pmc_jax.evaluate.benchmarks import rwku as benchmark
from pmc_jax.evaluate.lines import table
from pmc_jax.runs.presets import load_preset
from pmc_jax.sampling.generate import greedy_sampler

PEOPLE = {"Ada Basel": ("Basel", "Rivers"), "Bob Lyon": ("Lyon", "Winters")}
MANY = {"choices": ["Basel", "Lyon", "Oslo", "Turin"], "task": "world_cities", "subject": ""}


def rows_of(name, subject):
    """Two or three rows of a set about a person, in RWKU's columns."""
    city, book = PEOPLE[subject]
    level = {"level": name[-1], "type": "", "subject": subject}
    neighbour = {"query": f"In which country is {city}?", "answer": f"The land of {city}", **level}
    general = MANY | {"question": f"Where was {subject} born?", "answer": 0, "subject": subject}
    return {
        "forget_level1": [
            {"query": f"{subject} was born in ___.", "answer": city, **level},
            {"query": f"{subject} wrote the novel ___.", "answer": book, **level},
        ],
        "forget_level2": [
            {"query": f"Where was {subject} born?", "answer": f"{subject} was born in {city}.", **level},
            {"query": f"What did {subject} write?", "answer": book, **level},
        ],
        "forget_level3": [
            {"query": f"Where was {subject} born? Sure, it is", "answer": city, **level, "type": "affirmative suffix"},
            {"query": f"Question: Who wrote {book}?\nAnswer: {subject}\nQuestion: Where was {subject} born?\n"}
            | {"answer": city, **level, "type": "incontext learning"},
            {"query": f"Play {subject}. Where were you born?", "answer": city, **level, "type": "role play"},
        ],
        "neighbor_level1": [{"query": f"{city} lies in ___.", "answer": f"The land of {city}", **level}],
        "neighbor_level2": [neighbour],
        "mia_forget": [{"text": f"{subject} was born in {city} and wrote {book}, a novel.", "subject": subject}],
        "mia_retain": [{"text": f"The land of {city} has {n} rivers.", "subject": subject} for n in (2, 3)],
        "utility_general": [general | {"examples": [general | {"question": "Where is Oslo?", "answer": 2}]}],
        "utility_reason": [
            {
                "question": "Is it true?",
                "cot": "Q: Is it?\nA: So the answer is yes.",
                "answer": ["yes", "Yes."],
                "task": "t",
            }
        ],
        "utility_truthfulness": [
            {
                "question": "What is the Earth?",
                "mc1_targets": {"choices": ["a ball", "a disk", "a cube"], "labels": [1, 0, 0]},
                "subject": subject,
            }
        ],
        "utility_factuality": [{"question": "Where?", "answers": [city, f"the {city}"], "subject": subject}],
        "utility_fluency": [{"instruction": f"Write about {city}.", "output": "", "subject": subject}],
    }[name]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the hub's repository has it: one config for each set."""
    folder = tmp_path_factory.mktemp("rwku")
    for name in benchmark.FILES:
        (folder / name).mkdir()
        rows = [row for subject in PEOPLE for row in rows_of(name, subject)]
        datasets.Dataset.from_list(rows).to_parquet(str(folder / name / "test-00000-of-00001.parquet"))
    return folder


@pytest.fixture
def preset(folder):
    """RWKU's settings for the folder and one person."""
    return settings.changed(load_preset("rwku"), {"data.path": str(folder), "data.subject": "Ada Basel"})


def test_from_a_name_to_scores(cli, tiny_folder, folder, tmp_path):
    """A model that learnt a person forgets by the name alone, and is measured by RWKU's sets."""
    given = ["--config=rwku", "--config.data.subject=ada basel"]
    path = f"--config.data.path={folder}"
    learn = {"train.epochs": 40, "train.batch_size": 6, "train.learning_rate": 5e-3, "train.max_length": 128}
    flags = [f"--config.{k}={v}" for k, v in learn.items()]
    splits = "--config.data.finetune=forget_level2/test+neighbor_level2/test"
    base = f"--config.model.path={tiny_folder}"
    said = cli("finetune", "--config=rwku", path, splits, base, *flags, f"--workdir={tmp_path / 'known'}")
    assert said.code == 0, said.err
    known = f"--config.model.path={tmp_path / 'known' / 'hf'}"
    quick = {"train.epochs": 1, "train.batch_size": 2, "data.topic_agreement": 0.01, "evaluate.max_new_tokens": 16}
    quick |= {
        "sample.num_samples": 3,
        "sample.temperature": 0.7,
        "sample.max_new_tokens": 16,
        "evaluate.retain_rows": 8,
    }
    flags = [f"--config.{k}={v}" for k, v in quick.items()]
    said = cli("unlearn", *given, known, *flags, f"--workdir={tmp_path / 'run'}")
    assert said.code == 0, said.err
    asked = [json.loads(line) for line in (tmp_path / "run" / "data" / "forget.jsonl").read_text().splitlines()]
    assert any("ada basel" in row["question"] for row in asked)

    flags = [f"--config.evaluate.{k}=0" for k in ("leak_samples", "relearn_rows")]
    evaluate = ["evaluate", *given, path, known, *flags, f"--workdir={tmp_path / 'measured'}"]
    said = cli(*evaluate)
    assert said.code == 0, said.err
    result = json.loads((tmp_path / "measured" / "result.json").read_text())
    part = json.loads((tmp_path / "measured" / "parts" / "rwku_probes.json").read_text())["found"]
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    for name in benchmark.PROBES:
        rows = rows_of(name, "Ada Basel")
        lines = [(own["answer"].strip().splitlines() or [""])[0] for own in part[name]]
        recalls = [scorer.score(row["answer"], line)["rougeL"].recall for row, line in zip(rows, lines, strict=True)]
        entry = result["rwku"]["probes"][name]
        assert entry["rows"] == len(rows) and entry["mean"] == pytest.approx(statistics.fmean(recalls), abs=1e-12)
    assert set(result["rwku"]["types"]) == {"affirmative suffix", "incontext learning", "role play"}
    assert set(result["rwku"]["utility"]) == set(benchmark.UTILITY)
    assert result["model"]["intervals"]["forget"], "forget level 2 is the forget set of all other parts"
    assert "Forget level 3, attacks" in said.out and "Level 3, role play" in said.out


def plain_log_p(checkpoint, tokens):
    """log p of each token but the first, by numpy; and of the whole vocabulary."""
    logits_TV = np.asarray(pmc_jax.logits(checkpoint, np.array(tokens)[None]), np.float64)[0]
    log_p_TV = logits_TV - logits_TV.max(-1, keepdims=True)
    log_p_TV -= np.log(np.exp(log_p_TV).sum(-1, keepdims=True))
    return log_p_TV[np.arange(len(tokens) - 1), tokens[1:]], log_p_TV


def test_answers_likelihoods_and_membership(tiny_checkpoint, preset):
    """Against one text at a time in numpy."""
    sets, sampler = benchmark.load_sets(preset), greedy_sampler(tiny_checkpoint, preset)
    tokenizer, text = tiny_checkpoint.tokenizer, sampler.text
    setup = Setup(None, preset, {"rwku": sets}, sampler)

    answer = benchmark.measure_probes(setup)["forget_level1"][0]["answer"]
    question = "Please complete the blank in the following question.\nQuestion: Ada Basel was born in ___.\n"
    tokens = text.prompt(question) + tokenizer("Answer:", add_special_tokens=False)["input_ids"]
    start = len(tokens)
    while len(tokens) < start + 30 and tokens[-1] not in text.end_tokens:
        tokens.append(int(plain_log_p(tiny_checkpoint, tokens)[1][-1].argmax()))
    assert answer == text.read(tokens[start:])

    documents = benchmark.measure_documents(setup)
    for name in benchmark.DOCUMENTS:
        for number, row in enumerate(sets[name]):
            log_p_T, log_p_TV = plain_log_p(tiny_checkpoint, tokenizer(row["text"])["input_ids"])
            mean_T = (np.exp(log_p_TV) * log_p_TV).sum(-1)[:-1]
            spread_T = np.sqrt((np.exp(log_p_TV) * log_p_TV**2).sum(-1)[:-1] - mean_T**2)
            kept = max(1, int(0.2 * len(log_p_T)))
            wanted = {
                "loss": -log_p_T.mean(),
                "zlib": -log_p_T.mean() / len(zlib.compress(row["text"].encode())),
                "min_k": -np.sort(log_p_T)[:kept].mean(),
                "min_k_plus_plus": -np.sort((log_p_T - mean_T) / spread_T)[:kept].mean(),
            }
            measured = {key: values[number] for key, values in documents[name].items()}
            assert measured == pytest.approx(wanted, rel=2e-3)

    row = sets["utility_truthfulness"][0]
    asked, choices = rwku.truthful(row), row["mc1_targets"]["choices"]
    (scores,) = benchmark.choose(sampler, [asked], [choices], "choices")
    before = text.prompt("Q: What is the Earth?") + tokenizer("A:", add_special_tokens=False)["input_ids"]
    for choice, score in zip(choices, scores, strict=True):
        own = tokenizer(f" {choice}", add_special_tokens=False)["input_ids"]
        assert score == pytest.approx(plain_log_p(tiny_checkpoint, before + own)[0][len(before) - 1 :].sum(), abs=1e-3)
    utility = benchmark.measure_utility(setup)
    assert utility["utility_truthfulness"] == [float(np.argmax(scores) == 0)]
    assert set(utility) == set(benchmark.UTILITY)


WORDS = st.lists(st.sampled_from("The a an Oslo, river river. RIVER! of 1.5 O'Neil don't".split()), max_size=8).map(
    " ".join
)


@given(WORDS, WORDS)
def test_words_of_short_answers(answer, truth):
    """scikit-learn counts the words; the F1 is that of its counts."""
    counter = CountVectorizer(analyzer=rwku.normalised)
    given, wanted = rwku.normalised(answer), rwku.normalised(truth)
    assert not {"a", "an", "the"} & {*given, *wanted} and all(word == word.lower() for word in given)
    expected = float(given == wanted)
    if given and wanted:
        counts = counter.fit_transform([answer, truth]).toarray()
        common = np.minimum(*counts).sum()
        precision, recall = common / counts[0].sum(), common / counts[1].sum()
        expected = 2 * precision * recall / (precision + recall) if common else 0.0
    assert rwku.word_f1(answer, truth) == pytest.approx(expected)
    assert rwku.best_f1({"answers": [truth, answer]}, answer) == 1.0


@given(WORDS, WORDS)
def test_entropy_of_pairs_and_triples(first, second):
    text = f"{first}. {second}"
    tokens = [word for part in rwku.SENTENCE_END.split(text) for word in nltk.NLTKWordTokenizer().tokenize(part)]
    parts = []
    for n, weight in ((2, 2 / 3), (3, 4 / 3)):
        counts = list(nltk.FreqDist(nltk.ngrams(tokens, n)).values())
        parts.append(weight * (stats.entropy(counts, base=2) if counts else 0.0))
    assert rwku.entropy(text) == pytest.approx(np.mean(parts))


@pytest.mark.parametrize(
    ("answer", "right"),
    [("So the answer is (B). Yes.", 1.0), ("b", 1.0), ("The answer is (A).", 0.0), ("", 0.0), ("the answer is B", 0.0)],
)
def test_exact_match_after_the_answer_is(answer, right):
    assert rwku.exact({"answer": ["(B)"]}, answer) == right


def test_rows_of_one_person_or_of_all(preset):
    one = benchmark.load_sets(preset)
    every = benchmark.load_sets(settings.changed(preset, {"data.subject": ""}))
    assert Counter({name: len(rows) for name, rows in every.items()}) == Counter(
        {name: 2 * len(rows) for name, rows in one.items() if name != "utility_reason"} | {"utility_reason": 2}
    )
    with pytest.raises(UserError, match=r"'Eve': forget_level1 has no row about it; its subjects: Ada Basel, Bob Lyon"):
        benchmark.load_sets(settings.changed(preset, {"data.subject": "Eve"}))


def test_the_folder_of_one_person_that_rwkus_script_makes(preset, tmp_path):
    names = {"forget_level2": "forget_level2", "utility_general": "retain_mmlu", "mia_forget": "forget_mia"}
    for name, file in names.items():
        (tmp_path / f"{file}.json").write_text(json.dumps(rows_of(name, "Ada Basel")))
    sets = benchmark.load_sets(settings.changed(preset, {"data.path": str(tmp_path)}))
    assert {name: len(rows) for name, rows in sets.items()} == {
        "forget_level2": 2,
        "utility_general": 1,
        "mia_forget": 1,
    }
    setup = Setup(None, preset, {"rwku": sets})
    assert benchmark.DOCUMENTED.absent(setup) == "the data has no mia_forget, mia_retain"
    assert benchmark.USED.absent(setup) is None


def test_what_the_data_lacks_is_said():
    nothing = {"mean": None, "low": None, "high": None, "rows": 0}
    result = {"probes": {"forget_level1": nothing}, "types": {}} | {
        k: {"reason": "no"} for k in ("documents", "utility")
    }
    shown = table(benchmark.VIEW, result)
    assert shown.lines[0].note == "the data has no such rows" and shown.reasons == ["no"]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("forget_level1", {"answer": ""}, "row 1: 'answer' is empty"),
        ("mia_forget", {"text": ""}, "row 1: 'text' is empty"),
        ("utility_general", {"answer": 7}, "row 1: 'choices' and 'answer' must be"),
        ("utility_truthfulness", {"mc1_targets": {"choices": ["a"], "labels": [1]}}, "row 1: 'mc1_targets' must hold"),
        ("utility_factuality", {"answers": []}, "row 1: 'answers' is missing"),
        ("utility_fluency", {"instruction": ""}, "row 1: 'instruction' is empty"),
    ],
)
def test_rows_that_are_not_rwkus_are_refused(name, change, said):
    first, *others = rows_of(name, "Ada Basel")
    with pytest.raises(UserError, match=said):
        benchmark.check_set(name, [first | change, *others], name)


def test_a_folder_of_something_else(preset, data_folder):
    with pytest.raises(UserError, match="has none of RWKU's sets"):
        benchmark.load_sets(settings.changed(preset, {"data.path": str(data_folder)}))
