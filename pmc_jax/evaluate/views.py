"""How the project's own results are shown: {key of result.json: View}. No model library is imported here."""

from typing import Any

from pmc_jax.evaluate.lines import Chart, Line, View, mean_line
from pmc_jax.evaluate.quality import SETS
from pmc_jax.evaluate.recall import CONTENT, ROUGE, left_out

SCORES = {ROUGE: "ROUGE-L recall", CONTENT: "content recall"}  # the setting evaluate.score -> its name
PREFILL = "The answer is:"  # the words that the prefill attack begins an answer with
LEAKAGE_MEASURES = {
    "worst": "Worst sample",
    "mean": "Mean sample",
    "M_bin": "M_bin: chance that half of the answer or more leaks, at most",
    "M_gen": "M_gen: chance that more than half leaks, at most, from the distribution’s band",
    "M_mu": "M_mu: mean, at most",
    "M_sigma": "M_sigma: standard deviation, at most",
    "ED": "ED: mean + 2 standard deviations",
}


def summary_lines(summary: dict[str, Any]) -> list[Line]:
    """The recalls of the five sets, unlearn quality and utility; content recall; how fluent the forget answers are."""
    title = SCORES[score := summary.get("score", ROUGE)]
    lines = []
    for name in (*SETS, "unlearn_quality", "utility"):
        low, high = summary.get("intervals", {}).get(name) or (None, None)
        value, form = summary[name], "share" if name in SETS else "points"
        rows = summary["rows"].get(name)
        note = "" if value is not None else "nothing to count: the data has no such set, or no answers to it"
        if rows and name in SETS:
            note = left_out({"rows": rows, "of": summary.get("of", summary["rows"])[name]})
        hint = title if name in SETS else ""
        lines.append(Line(name.replace("_", " "), value, low, high, rows, form, hint, join(note, saw(summary, name))))
    by_content = {} if score == CONTENT else summary.get("content_recall", {})
    lines[len(SETS) : len(SETS)] = never_saw_lines(summary, "forget", title)
    for name in filter(by_content.get, SETS):
        lines.append(content_line(name.replace("_", " "), by_content[name], SCORES[CONTENT]))
        if name == "forget":
            lines += never_saw_lines(summary, CONTENT, SCORES[CONTENT])
    if "forget_perplexity" in summary:
        lines += fluency_lines(summary)
    return lines


def never_saw_lines(summary: dict[str, Any], key: str, hint: str) -> list[Line]:
    """The recall of the forget answers by a model that never saw them, where there is one."""
    never_saw = summary.get("never_saw")
    return [content_line("forget, by a model that never saw it", never_saw[key], hint)] if never_saw else []


def content_line(name: str, entry: dict[str, Any], hint: str) -> Line:
    """The line of a mean that may leave rows out."""
    note = left_out(entry) if entry["rows"] else "nothing to count"
    return mean_line(name, entry, hint=hint, note=note)


def saw(summary: dict[str, Any], name: str) -> str:
    """What ROUGE did not see of a set's texts; "" where that rounds to nothing, or ROUGE is not the score."""
    shares = summary.get("rouge_saw", {}).get(name, {}) if summary.get("score", ROUGE) == ROUGE else {}
    told = {text: f"{share:.1%}" for text, share in shares.items() if share is not None}
    parts = [f"{share} of the {text}s" for text, share in told.items() if share != "100.0%"]
    return f"of letters and digits ROUGE saw {' and '.join(parts)}" if parts else ""


def join(*notes: str) -> str:
    """The notes that say something, in one."""
    return "; ".join(note for note in notes if note)


def fluency_lines(result: dict[str, Any]) -> list[Line]:
    """Perplexity of the forget answers under the original model."""
    entry = result["forget_perplexity"]
    hint = "under the original model"
    lines = [
        Line("perplexity of forget answers, median", entry["median"], rows=entry["rows"], form="number", hint=hint)
    ]
    kinds = result.get("forget_answers")
    if kinds:
        neither = f"neither: perplexity above {kinds['limit']:.0f}, ten times that of the model's own answers"
        lines += [
            Line(f"forget answers, share {name}", kinds[kind], rows=kinds["rows"], form="share", hint=why)
            for kind, name, why in (
                ("fluent", "that are fluent", ""),
                ("refused", "that refuse", ""),
                ("neither", "neither fluent nor refusals", neither),
            )
        ]
    return lines


def tofu_lines(metrics: dict[str, Any]) -> list[Line]:
    """TOFU's metrics by the names of its log; the mean scores of an attack's two sides are left out."""
    lines = []
    for name, entry in metrics.items():
        if "/" not in name:
            low, high = entry.get("interval") or (None, None)
            note = entry["reason"] if entry["value"] is None else entry.get("note", "")
            lines.append(Line(name, entry["value"], low, high, entry["rows"], "number", note=note))
    return lines


def option_lines(option: dict[str, Any]) -> list[Line]:
    """The least likely option against chance."""
    return [
        mean_line("The least likely is the secret", option, hint="at chance nothing shows"),
        Line("Chance", option["chance"]),
    ]


def leakage_lines(leaks: dict[str, Any]) -> list[Line]:
    """The worst of the samples and its bounds, sampled and after a prefilled start; both by content recall besides."""
    starts = {"sampled": "", "prefilled": f" after “{PREFILL}”", "retain_model": " by a model that never saw it"}
    lines = []
    for key, start in starts.items():
        leak = leaks.get(key, {})
        score = leak.get("score", ROUGE)
        for name, part in {score: leak, CONTENT: leak.get("content_recall", {})}.items():
            hint = f"{leak.get('samples')} answers sampled{start}, {SCORES[name]}"
            for measure, entry in part.get("measures", {}).items():
                spread = part["worst_of_each"] if measure == "worst" else None
                if (name == score and key != "retain_model") or measure in ("worst", "mean"):
                    note = left_out(entry | {"of": part.get("of", entry["rows"])})
                    title = LEAKAGE_MEASURES[measure]
                    lines.append(mean_line(title, entry, hint=hint, spread=spread, note=note))
    return lines


def relearning_lines(curves: dict[str, Any]) -> list[Line]:
    """Recall of the forget answers that were held back, by updates on those that were shown; content recall at the
    start and at the end.
    """
    lines = []
    for key, title, series in (("model", "this model", ""), ("retain_model", "retain model", "retain model")):
        looks = curves[key].get("looks", [])
        for look in looks:
            updates = look["updates"]
            lines.append(mean_line(f"{title}, updates: {updates}", look["held_back"], x=updates, series=series))
        for look in [looks[0], looks[-1]] if looks else []:
            if by_content := look.get(CONTENT):
                name = f"{title}, updates: {look['updates']}"
                lines.append(content_line(name, by_content["held_back"], "answers held back, content recall"))
    return lines


def neighbour_lines(result: dict[str, Any]) -> list[Line]:
    """Near and far retain rows now, and how they changed; by content recall besides."""
    by_content = result.get(CONTENT, {})
    return near_and_far_lines(result) + (near_and_far_lines(by_content, ", content recall") if by_content else [])


def near_and_far_lines(result: dict[str, Any], score: str = "") -> list[Line]:
    """The lines of one score; none where there are too few rows. score: ends the hints."""
    titles = {"near": "Near", "far": "Far", "difference": "Near less far"}
    lines = []
    for name, title in titles.items() if "recall" in result else ():
        form, hint = ("change", "") if name == "difference" else ("share", "higher is better")
        lines.append(mean_line(title, result["recall"][name], form=form, hint=(hint + score).removeprefix(", ")))
    change = result.get("change", {})
    for name, title in titles.items() if "reason" not in change else ():
        if name in change:
            hint = f"since the original model{score}"
            lines.append(mean_line(f"{title}, change", change[name], form="change", hint=hint))
    return lines


def drift_lines(result: dict[str, Any]) -> list[Line]:
    """Words of the forget answers and other words in unrelated text."""
    lines = []
    for kind, title in {"forget_words": "Words of forget answers", "other_words": "Other words"}.items():
        entry = result[kind]
        deviation = "" if entry["std"] is None else f", standard deviation {entry['std']:.4f}"
        note = f"{entry['words']} words{deviation}"
        lines.append(mean_line(title, entry, form="small change", hint="function words left out", note=note))
    return lines


SUMMARY = View(
    "Answers by set",
    summary_lines,
    "Recall of greedy answers (0..1), unlearn quality and utility made of it (0..100), with bootstrap 95 % intervals.",
)
LEAKAGE = View(
    "Leakage under sampling",
    leakage_lines,
    "Recall of the secret in answers sampled for each forget question, as the model is (temperature 1), and "
    "after words put in its mouth; lower is better. Bounds hold with 95 %.",
)
RELEARNING = View(
    "Relearning",
    relearning_lines,
    "A few forget answers are trained on. The values are the recall of the others, which are held back. A "
    "model that never saw them is the yardstick: what it gains is no memory of them.",
    Chart("Answers held back", "mean recall with its interval, by updates on the answers shown", "update"),
)
LEAST_LIKELY_OPTION = View(
    "Least likely option",
    option_lines,
    "Unlearning that pushes the secret down leaves a fingerprint: the least likely option of a multiple choice is the "
    "secret more often than by chance.",
)
NEIGHBOURS = View(
    "Neighbouring knowledge",
    neighbour_lines,
    "Recall of the quarter of retain questions nearest to the forget questions (by TF-IDF), and of the farthest "
    "quarter.",
)
FLUENCY = View(
    "Fluency of forget answers",
    fluency_lines,
    "Perplexity, a token, of the answers to the forget questions. The model from before unlearning finds gibberish "
    "unlikely.",
)
DRIFT = View(
    "Drift in unrelated text",
    drift_lines,
    "Change since the original model of a word’s probability in answers that have nothing to do with the secret. Words "
    "of the forget answers that lose more there than others do are a side effect of unlearning.",
)
TOFU = View(
    "TOFU’s metrics",
    tofu_lines,
    "By the names of its evaluation logs, with bootstrap 95 % intervals over rows. Truth ratios are of geometric means "
    "over wrong answers.",
)

# In the order of the page.
VIEWS = {
    "model": SUMMARY,
    "leakage": LEAKAGE,
    "relearning": RELEARNING,
    "least_likely_option": LEAST_LIKELY_OPTION,
    "neighbours": NEIGHBOURS,
    "drift": DRIFT,
    "fluency": FLUENCY,
    "tofu": TOFU,
}
