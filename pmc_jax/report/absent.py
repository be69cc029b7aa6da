"""What a report does not say, in plain words."""

from collections.abc import Callable
from typing import Any

from pmc_jax.report.read import Run


def piece(run: Run, *path: str) -> Any:
    """result.json at a path; None where there is nothing."""
    value: Any = run.result
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


# {name: whether a run has measured it}
MEASURED: dict[str, Callable[[Run], Any]] = {
    "attacks": lambda run: piece(run, "tofu", "mia_loss"),
    "quality": lambda run: piece(run, "tofu", "forget_quality", "value") is not None,
    "leakage": lambda run: piece(run, "leakage", "sampled", "measures"),
    "option": lambda run: piece(run, "least_likely_option", "chance"),
    "relearning": lambda run: piece(run, "relearning", "model", "looks"),
    "quantised": lambda run: piece(run, "quantised", "as it is"),
    "drift": lambda run: piece(run, "drift", "forget_words"),
    "fluency": lambda run: piece(run, "after", "forget_perplexity") or piece(run, "fluency", "forget_perplexity"),
    "neighbours": lambda run: "neighbours" in run.tables and run.tables["neighbours"].lines,
    "ability": lambda run: piece(run, "ability", "now", "perplexity"),
}
# name in MEASURED -> (title, why it would matter): what `pmc-jax evaluate` measures and other runs do not, or not all
# of them.
MEASURABLE = {
    "fluency": (
        "Fluency",
        "an answer that shares no word with the truth scores as forgotten, also when it is no sentence; it needs the "
        "model from before unlearning.",
    ),
    "attacks": (
        "Membership attacks",
        "whether an attacker can still tell that the forget data was trained on, from losses or probabilities.",
    ),
    "quality": (
        "Forget quality",
        "TOFU's test against a model that never saw the forget data; it needs that model, and paraphrased and wrong "
        "answers.",
    ),
    "leakage": ("Leakage under sampling", "greedy answers only: what the worst of many sampled answers gives away."),
    "option": ("Least likely option", "whether the secret is the answer that the model avoids most."),
    "relearning": ("Relearning", "how fast a little fine-tuning brings the answers back."),
    "quantised": ("Rounded weights", "whether the answers come back in fewer bits, as models are served in."),
    "drift": (
        "Drift in unrelated text",
        "what became of the forget answers' words elsewhere; it needs the model from before unlearning.",
    ),
    "neighbours": (
        "Neighbouring knowledge",
        "whether what lies near the secret suffers more than what lies far from it.",
    ),
    "ability": ("General ability", "perplexity of unrelated text, multiple choice."),
}
ALWAYS = (
    (
        "Other ways to ask",
        "the questions as written (and one paraphrase) only: no translation, no jailbreak, no examples in the prompt.",
    ),
    ("Merging", "whether the answers come back in another model's weights."),
    (
        "Chance",
        "intervals are over rows of one run; another seed may give another result. Rows that all score the same give "
        "no width: not certainty.",
    ),
)
SETS = {
    "forget_paraphrased": "paraphrased forget questions",
    "retain": "retain",
    "world_facts": "world facts",
    "real_authors": "real authors",
}


def not_measured(runs: list[Run]) -> list[dict[str, str]]:
    """What these runs lack, those of all first, and what no run measures."""
    lacking = [unmeasured(run) + lacks(run) for run in runs]
    everywhere = [pair for pair in lacking[0] if all(pair in pairs for pairs in lacking)]
    entries = list(everywhere)
    for run, pairs in zip(runs, lacking):
        entries += [(f"{title} ({run.name})", reason) for title, reason in pairs if (title, reason) not in everywhere]
    return [{"what": title, "why": reason} for title, reason in (*entries, *ALWAYS)]


def unmeasured(run: Run) -> list[tuple[str, str]]:
    """What `pmc-jax evaluate` could have measured of this run's model."""
    return [MEASURABLE[name] for name, measured in MEASURED.items() if not measured(run)]


def lacks(run: Run) -> list[tuple[str, str]]:
    """(title, reason) of what one run lacks."""
    pairs = []
    evaluated = run.now or run.before
    missing = [title for name, title in SETS.items() if evaluated and evaluated.get(name) is None]
    if missing:
        reason = "the data does not have them; unlearn quality and utility leave them out."
        pairs.append((f"Sets: {', '.join(missing)}", reason))
    if evaluated.get("forget_truth") == "original answers":
        reason = "the forget file has no answers: forget rows are held against the original model's own answers."
        pairs.append(("Ground truth", reason))
    if not run.result:
        pairs.append(("The model now", "this run is not finished, so nothing was evaluated after unlearning."))
    elif not run.before:
        pairs.append(("The model before", "this is an evaluation of one checkpoint alone."))
    subset = run.frozen["settings"].get("evaluate.retain_rows")
    if subset and evaluated.get("rows", {}).get("retain") == subset:
        pairs.append(("The rest of retain", f"a seeded subset of {subset} rows was evaluated (evaluate.retain_rows)."))
    return pairs
