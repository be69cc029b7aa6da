"""MUSE (Shi et al., arXiv 2407.06460): what a model still says of news or books that it should have forgotten.

Knowledge memorisation by questions, verbatim memorisation by continuations, and whether a likelihood attack tells the
forgotten texts from ones that were never seen. Prompts are given as they stand, without a template.
"""

from typing import Any

from ml_collections import ConfigDict

from pmc_jax.data.questions import Rows, check_rows, has_split, load_split
from pmc_jax.errors import UserError
from pmc_jax.evaluate import membership, muse
from pmc_jax.evaluate.benchmark import RETAIN_MODEL, Benchmark, Measurement, Part, Setup
from pmc_jax.evaluate.interval import mean_with_interval
from pmc_jax.evaluate.likelihood import tracked_scores
from pmc_jax.evaluate.lines import Line, View, mean_line
from pmc_jax.evaluate.metrics import privacy_leak
from pmc_jax.evaluate.raw_text import document_row, raw_tokens
from pmc_jax.evaluate.verbatim import continuations
from pmc_jax.sampling.sampler import Sampler

# Set -> (CONFIG/SPLIT of the data, its columns).
QUESTIONS = ("question", "answer")
SPLITS = {
    "verbmem": ("verbmem/forget", ("prompt", "gt")),
    "knowmem_forget": ("knowmem/forget_qa", QUESTIONS),
    "knowmem_forget_icl": ("knowmem/forget_qa_icl", QUESTIONS),
    "knowmem_retain": ("knowmem/retain_qa", QUESTIONS),
    "knowmem_retain_icl": ("knowmem/retain_qa_icl", QUESTIONS),
    "privleak_forget": ("privleak/forget", ("text",)),
    "privleak_holdout": ("privleak/holdout", ("text",)),
}
ATTACKED = ("privleak_forget", "privleak_holdout")
ASKED = ("verbmem", "knowmem_forget", "knowmem_retain")


def load_sets(config: ConfigDict) -> dict[str, Rows]:
    """The sets that the data has. UserError where it has none of them."""
    path, sets = config.data.path, {}
    for name, (split, columns) in SPLITS.items():
        if has_split(path, split):
            sets[name] = check_rows(load_split(path, split), f"{path} {split}", columns)
    if not sets:
        wanted = ", ".join(split for split, _ in SPLITS.values())
        raise UserError(
            f"data.path={path!r}: has none of MUSE's splits ({wanted}); give muse-bench/MUSE-News, or a copy"
        )
    return sets


def sets_of(setup: Setup) -> dict[str, Rows]:
    """The sets of this benchmark."""
    return setup.data[MUSE.name]


def said_after(sampler: Sampler, prompts: list[str], longest: int, progress: str) -> list[str]:
    """The greedy continuation of each prompt as a text; an end token ends it."""
    free = sampler.with_sampling(banned=())
    decode = sampler.text.tokenizer.decode
    return [decode(ids, skip_special_tokens=True) for ids in continuations(free, prompts, longest, progress)]


def measure_answers(setup: Setup) -> dict[str, list[dict[str, str]]]:
    """{set of ASKED: [{"truth", "answer"}]}."""
    sets, sampler, said = sets_of(setup), setup.sampler, {}
    for name in (name for name in ASKED if name in sets):
        rows = sets[name]
        if name == "verbmem":
            prompts, longest = [row["prompt"] for row in rows], muse.VERBATIM_TOKENS
            ids = [raw_tokens(sampler.text, row["gt"])[:longest] for row in rows]
            truths = [sampler.text.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in ids]
            answers = said_after(sampler, prompts, longest, "MUSE, verbatim")
        else:
            prompts = [muse.knowledge_prompt(sets.get(f"{name}_icl", []), row["question"]) for row in rows]
            truths = [row["answer"] for row in rows]
            said_whole = said_after(sampler, prompts, muse.ANSWER_TOKENS, f"MUSE, {name}")
            answers = [muse.cut_answer(answer) for answer in said_whole]
        said[name] = [{"truth": truth, "answer": answer} for truth, answer in zip(truths, answers, strict=True)]
    return said


def no_attack(setup: Setup) -> str | None:
    """Why there is no likelihood attack."""
    return None if sets_of(setup).keys() >= set(ATTACKED) else "the data has no privleak/forget and privleak/holdout"


def measure_attack(setup: Setup) -> dict[str, dict[str, list[float]]]:
    """{variant: {set of ATTACKED: the score of each text}}."""
    scores: dict[str, dict[str, list[float]]] = {variant: {} for variant in muse.VARIANTS}
    for name in ATTACKED:
        rows = [document_row(setup.sampler.text, row["text"]) for row in sets_of(setup)[name]]
        log_probs = [s.log_probs for s in tracked_scores(setup.sampler, rows, f"MUSE, {name}")]
        for variant, how in muse.VARIANTS.items():
            scores[variant][name] = muse.attack_scores(log_probs, how).tolist()
    return scores


MUSE_ANSWERS = Measurement("muse_answers", measure_answers)
MUSE_ATTACK = Measurement("muse_attack", measure_attack, absent=no_attack)
RETAIN_ATTACK = Measurement("retain_muse_attack", measure_attack, RETAIN_MODEL, absent=no_attack)


def auc_of(scores: dict[str, list[float]]) -> float | None:
    """The area with holdout = 1, as open-unlearning has it: 1 where the forgotten texts are recognised."""
    return membership.auc(*(scores[name] for name in ATTACKED))


def muse_result(setup: Setup) -> dict[str, Any]:
    """{set of ASKED: {variant: mean ROUGE-L F1}}, and {"privleak": {variant: {"auc", "reference", "value"}}}."""
    answers, result = setup.finding(MUSE_ANSWERS.name), {}
    for name in ASKED:
        result[name] = {
            variant: mean_with_interval(
                [muse.rouge_f1(r["truth"], r["answer"], how) for r in answers.get(name, [])]
            )._asdict()
            for variant, how in muse.VARIANTS.items()
        }
    attack, reference = setup.finding(MUSE_ATTACK.name), setup.finding(RETAIN_ATTACK.name)
    if "reason" in attack:
        return result | {"privleak": {"value": None, "reason": attack["reason"]}}
    given = setup.config.evaluate.muse_auc
    leaks = {}
    for variant in muse.VARIANTS:
        auc = auc_of(attack[variant])
        known = auc_of(reference[variant]) if "reason" not in reference else (1 - given if given else None)
        leaks[variant] = {"auc": auc, "reference": known, "rows": sum(map(len, attack[variant].values()))}
        leaks[variant]["value"] = None if known is None else privacy_leak(auc, known)
    return result | {"privleak": leaks}


TITLES = {
    "verbmem": ("Verbatim memorisation", "lower is better"),
    "knowmem_forget": ("Knowledge memorisation, forget", "lower is better"),
    "knowmem_retain": ("Knowledge memorisation, retain", "higher is better"),
}
CODES = {"muse": "MUSE", "open_unlearning": "open-unlearning"}
NO_REFERENCE = "needs a model that never saw the texts (evaluate.retain_model), or its AUC (evaluate.muse_auc)"


def muse_lines(result: dict[str, Any]) -> list[Line]:
    """Every metric by either code."""
    lines = []
    for name, (title, better) in TITLES.items():
        for variant, code in CODES.items():
            entry = result[name][variant]
            note = "" if entry["rows"] else "the data has no such rows"
            lines.append(mean_line(title, entry, hint=f"{code}’s ROUGE-L F1, {better}", note=note))
    leaks = result["privleak"]
    if "reason" in leaks:
        return [*lines, Line("Privacy leak", None, note=leaks["reason"])]
    for variant, code in CODES.items():
        leak, hint = leaks[variant], f"{code}’s Min-40%"
        # MUSE's own code counts the other way round.
        auc, known = (x if x is None or variant != "muse" else 1 - x for x in (leak["auc"], leak["reference"]))
        lines.append(Line("AUC, forget against holdout", auc, rows=leak["rows"], hint=hint))
        note = NO_REFERENCE if known is None else f"AUC of a model that never saw them: {known:.3f}"
        lines.append(Line("Privacy leak", leak["value"], form="points", hint=f"{hint}, 0 is best", note=note))
    return lines


VIEW = View(
    "MUSE",
    muse_lines,
    "Greedy continuations of the forgotten texts, answers behind examples, and a likelihood attack. MUSE’s code counts "
    "unstemmed words and every token; open-unlearning stems words and leaves the last token of a text out. MUSE’s AUC "
    "is 1 minus open-unlearning’s, which is 1 where forgotten texts are recognised. Privacy leak: below 0 they still "
    "show, above 0 they stand out the other way.",
)
MUSE = Benchmark("muse", load_sets, (Part("muse", VIEW, (MUSE_ANSWERS, MUSE_ATTACK, RETAIN_ATTACK), muse_result),))
