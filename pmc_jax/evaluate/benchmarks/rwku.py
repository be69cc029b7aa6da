"""RWKU: a real person, three levels of questions, neighbours, membership and utility (Jin et al., arXiv 2406.10890).

The data has one config for each set; `data.subject` chooses the rows about one person. Sets that are not there are left
out, so that a folder of some of them will do.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from pmc_jax.data.packing import FORGET, Row
from pmc_jax.data.questions import Rows, check_rows, has_split, load_split
from pmc_jax.data.subject import of_subject
from pmc_jax.errors import UserError
from pmc_jax.evaluate import membership, metrics, rwku
from pmc_jax.evaluate.benchmark import Benchmark, Measurement, Part, Setup
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.evaluate.likelihood import tracked_scores
from pmc_jax.evaluate.lines import Line, View, mean_line
from pmc_jax.evaluate.raw_text import document_row
from pmc_jax.sampling.sampler import Sampler
from pmc_jax.tracking.progress import track

# Set -> the names of its files: on the hub, and in the folder of one person that RWKU's own script makes.
FILES = {
    "forget_level1": ("forget_level1",),
    "forget_level2": ("forget_level2",),
    "forget_level3": ("forget_level3",),
    "neighbor_level1": ("neighbor_level1",),
    "neighbor_level2": ("neighbor_level2",),
    "mia_forget": ("mia_forget", "forget_mia"),
    "mia_retain": ("mia_retain", "retain_mia"),
    "utility_general": ("utility_general", "retain_mmlu"),
    "utility_reason": ("utility_reason", "retain_bbh"),
    "utility_truthfulness": ("utility_truthfulness", "truthful"),
    "utility_factuality": ("utility_factuality", "triviaqa"),
    "utility_fluency": ("utility_fluency", "fluency"),
}
PROBES = tuple(name for name in FILES if "level" in name)
DOCUMENTS = ("mia_forget", "mia_retain")
SHORT, LONG = 30, 256  # longest answers, tokens
SHARE = 0.2  # of a document's tokens that min-k and min-k++ look at


class Spoken(NamedTuple):
    """A utility set that is answered in words: prompt, longest answer, and the score of a row and its answer."""

    prompt: Callable[[dict[str, Any]], rwku.Asked]
    longest: int
    score: Callable[[dict[str, Any], str], float]


SPOKEN = {
    "utility_reason": Spoken(rwku.reasoning, LONG, rwku.exact),
    "utility_factuality": Spoken(rwku.factual, SHORT, rwku.best_f1),
    "utility_fluency": Spoken(rwku.fluent, LONG, lambda row, answer: rwku.entropy(answer)),
}


def load_sets(config: ConfigDict) -> dict[str, Rows]:
    """{set: rows about the person} of `FILES`, those that the data has."""
    path, subject, sets = config.data.path, config.data.subject, {}
    for name, files in FILES.items():
        split = next((s for file in files for s in (f"{file}/test", file) if has_split(path, s)), None)
        if split:
            sets[name] = check_set(name, of_subject(load_split(path, split), subject, name), f"{path} {split}")
    if not any(name in sets for name in PROBES):
        raise UserError(f"data.path={path!r}: has none of RWKU's sets ({', '.join(PROBES)}); give its folder or hub id")
    return sets


def check_set(name: str, rows: Rows, source: str) -> Rows:
    """The same rows, or a UserError that names the first row and field that are not RWKU's."""
    if name in DOCUMENTS:
        return check_rows(rows, source, ("text",))
    return rwku.check_queries(rows, source) if name in PROBES else rwku.check_utility(name, rows, source)


def sets_of(setup: Setup) -> dict[str, Rows]:
    """The sets of this benchmark."""
    return setup.data[RWKU.name]


def prompt_tokens(sampler: Sampler, asked: rwku.Asked) -> list[int]:
    """Token ids of the prompt, the words that the answer begins with included."""
    ids = sampler.text.tokenizer(asked.prefill, add_special_tokens=False)["input_ids"] if asked.prefill else []
    return sampler.text.prompt(asked.question) + list(ids)


def say(sampler: Sampler, asked: list[rwku.Asked], longest: int, what: str) -> list[str]:
    """Greedy answers, without what they were begun with."""
    shorter = sampler.with_sampling(max_new_tokens=longest)
    with track(f"RWKU, {what}", len(asked)) as advance:
        tokens = shorter.tokens_after([prompt_tokens(sampler, a) for a in asked], [a.question for a in asked], advance)
    return [sampler.text.read(own) for (own,) in tokens]


def continuations(sampler: Sampler, asked: rwku.Asked, texts: list[str]) -> list[Row]:
    """Rows whose labels are the tokens of texts after a prompt."""
    prompt = prompt_tokens(sampler, asked)
    ids = [list(sampler.text.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]) for text in texts]
    return [Row(prompt + own, len(prompt), FORGET) for own in ids]


def choose(sampler: Sampler, asked: list[rwku.Asked], texts: list[list[str]], what: str) -> list[np.ndarray]:
    """log p of each text after its prompt, nats: the sum over its tokens. An array for each prompt."""
    rows = [continuations(sampler, a, own) for a, own in zip(asked, texts, strict=True)]
    scores = tracked_scores(sampler, [row for own in rows for row in own], f"RWKU, {what}")
    sums = iter([float(np.sum(s.log_probs, dtype=np.float64)) for s in scores])
    return [np.array([next(sums) for _ in own]) for own in rows]


def measure_probes(setup: Setup) -> dict[str, list[dict[str, Any]]]:
    """{set: [{"answer", "recall", "type"} of each row]}."""
    measured = {}
    for name in PROBES:
        rows = sets_of(setup).get(name, [])
        asked = [rwku.probe(row, cloze=name.endswith("1")) for row in rows]
        answers = say(setup.sampler, asked, SHORT, name) if rows else []
        measured[name] = [
            {"answer": answer, "recall": rwku.recall(row, answer), "type": row.get("type")}
            for row, answer in zip(rows, answers, strict=True)
        ]
    return measured


def measure_documents(setup: Setup) -> dict[str, dict[str, list[float]]]:
    """{set: {"loss", "zlib", "min_k", "min_k_plus_plus": of each text}}."""
    measured = {}
    for name in DOCUMENTS:
        texts = [row["text"] for row in sets_of(setup)[name]]
        scores = tracked_scores(setup.sampler, [document_row(setup.sampler.text, t) for t in texts], f"RWKU, {name}")
        (logp_NT, tokens_N), (mu_NT, _), (var_NT, _) = (
            metrics.padded([getattr(s, field) for s in scores]) for field in ("log_probs", "means", "variances")
        )
        losses_N = membership.loss(logp_NT, tokens_N)
        values = {
            "loss": losses_N,
            "zlib": membership.loss_by_zlib(losses_N, texts),
            "min_k": membership.min_k(logp_NT, tokens_N, SHARE),
            "min_k_plus_plus": membership.min_k_plus_plus(logp_NT, mu_NT, var_NT, tokens_N, SHARE),
        }
        measured[name] = {key: value.tolist() for key, value in values.items()}
    return measured


def measure_utility(setup: Setup) -> dict[str, list[float]]:
    """{set: the score of each row}, of the sets that there are."""
    sets, measured = sets_of(setup), {}
    if rows := sets.get("utility_general"):
        letters = [list(rwku.LETTERS[: len(row["choices"])]) for row in rows]
        scores = choose(setup.sampler, [rwku.general(row) for row in rows], letters, "general ability")
        measured["utility_general"] = [float(np.argmax(own) == row["answer"]) for own, row in zip(scores, rows)]
    if rows := sets.get("utility_truthfulness"):
        choices = [list(row["mc1_targets"]["choices"]) for row in rows]
        scores = choose(setup.sampler, [rwku.truthful(row) for row in rows], choices, "truthfulness")
        measured["utility_truthfulness"] = [rwku.mc1(row["mc1_targets"]["labels"], s) for row, s in zip(rows, scores)]
    for name, spoken in SPOKEN.items():
        if rows := sets.get(name):
            answers = say(setup.sampler, [spoken.prompt(row) for row in rows], spoken.longest, name)
            measured[name] = [spoken.score(row, answer) for row, answer in zip(rows, answers)]
    return measured


def lacks(names: tuple[str, ...], needed: Callable[[list[bool]], bool]) -> Callable[[Setup], str | None]:
    """Why a measurement of some sets is not made. needed: any or all."""

    def reason(setup: Setup) -> str | None:
        there = needed([name in sets_of(setup) for name in names])
        return None if there else f"the data has no {', '.join(names)}"

    return reason


UTILITY = ("utility_general", "utility_truthfulness", *SPOKEN)
PROBED = Measurement("rwku_probes", measure_probes)
DOCUMENTED = Measurement("rwku_documents", measure_documents, absent=lacks(DOCUMENTS, all))
USED = Measurement("rwku_utility", measure_utility, absent=lacks(UTILITY, any))


def rwku_result(setup: Setup) -> dict[str, Any]:
    """{"probes": {set: mean}, "types": {type of attack: mean}, "documents", "utility": means, or {"reason"}}."""
    probes = setup.finding(PROBED.name)
    by_type: dict[str, list[float]] = {}
    for row in probes["forget_level3"]:
        by_type.setdefault(str(row["type"]), []).append(row["recall"])
    documents, utility = setup.finding(DOCUMENTED.name), setup.finding(USED.name)
    if "reason" not in documents:
        documents = {
            name: {k: mean_with_interval(v)._asdict() for k, v in own.items()} for name, own in documents.items()
        }
    if "reason" not in utility:
        utility = {name: mean_with_interval(values)._asdict() for name, values in utility.items()}
    means = {name: mean_with_interval([row["recall"] for row in rows])._asdict() for name, rows in probes.items()}
    types = {name: mean_with_interval(values)._asdict() for name, values in by_type.items()}
    return {"probes": means, "types": types, "documents": documents, "utility": utility}


TITLES = {
    "forget_level1": ("Forget level 1, fill the blank", "ROUGE-L recall, lower is better"),
    "forget_level2": ("Forget level 2, questions", "ROUGE-L recall, lower is better"),
    "forget_level3": ("Forget level 3, attacks", "ROUGE-L recall, lower is better"),
    "neighbor_level1": ("Neighbours, fill the blank", "ROUGE-L recall, higher is better"),
    "neighbor_level2": ("Neighbours, questions", "ROUGE-L recall, higher is better"),
    "utility_general": ("General ability (MMLU)", "accuracy of the letter"),
    "utility_reason": ("Reasoning (BBH)", "exact match"),
    "utility_truthfulness": ("Truthfulness (TruthfulQA)", "MC1"),
    "utility_factuality": ("Factuality (TriviaQA)", "F1"),
    "utility_fluency": ("Fluency (AlpacaEval)", "entropy of pairs and triples of words, bits"),
}
ATTACKS = {"loss": "loss", "zlib": "loss / zlib", "min_k": "min-20%", "min_k_plus_plus": "min-20%++"}


def rwku_lines(result: dict[str, Any]) -> list[Line]:
    """The levels, the kinds of attacks, membership and utility."""
    lines = []
    for name, entry in (result["probes"] | {k: v for k, v in result["utility"].items() if k != "reason"}).items():
        title, hint = TITLES[name]
        form = "number" if name == "utility_fluency" else "share"
        note = "" if entry["rows"] else "the data has no such rows"
        lines.append(mean_line(title, entry, hint=hint, note=note, form=form))
    lines += [mean_line(f"Level 3, {name}", entry, hint="ROUGE-L recall") for name, entry in result["types"].items()]
    for name, side in zip(DOCUMENTS, ("forget, higher = less member-like", "retain, lower = kept")):
        for key, title in ATTACKS.items() if "reason" not in result["documents"] else ():
            lines.append(mean_line(f"Membership, {title}, {side}", result["documents"][name][key], form="number"))
    return lines


VIEW = View(
    "RWKU",
    rwku_lines,
    "Greedy answers of at most 30 tokens, first line. ROUGE-L recall is that of rouge-score, stemmed; RWKU's own "
    "script counts distinct words with their case.",
)
RWKU = Benchmark("rwku", load_sets, (Part("rwku", VIEW, (PROBED, DOCUMENTED, USED), rwku_result),))
