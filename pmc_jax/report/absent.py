"""What a report does not say, in plain words."""

from pmc_jax.report.measures import MEASURED
from pmc_jax.report.read import Run

# name in MEASURED -> (what, why it would matter): what `pmc-jax evaluate` measures and other runs do not, or not all of
# them.
MEASURABLE = {
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
    "drift": (
        "Drift in unrelated text",
        "what became of the forget answers' words elsewhere; it needs the model from before unlearning.",
    ),
    "neighbours": (
        "Neighbouring knowledge",
        "whether what lies near the secret suffers more than what lies far from it.",
    ),
}
ALWAYS = (
    (
        "Other ways to ask",
        "the questions as written (and one paraphrase) only: no translation, no jailbreak, no examples in the prompt.",
    ),
    ("Quantisation and merging", "whether the answers come back in fewer bits or in another model's weights."),
    ("Fluency", "an answer that shares no word with the truth scores as forgotten, also when it is no sentence."),
    ("General ability", "no benchmark beyond the sets above."),
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
    everywhere = [pair for pair in lacking[0] if all(pair in found for found in lacking)]
    found = [{"what": what, "why": why} for what, why in everywhere]
    for run, pairs in zip(runs, lacking):
        found += [{"what": f"{what} ({run.name})", "why": why} for what, why in pairs if (what, why) not in everywhere]
    return found + [{"what": what, "why": why} for what, why in ALWAYS]


def unmeasured(run: Run) -> list[tuple[str, str]]:
    """What `pmc-jax evaluate` could have measured of this run's model."""
    return [MEASURABLE[name] for name, measured in MEASURED.items() if not measured(run)]


def lacks(run: Run) -> list[tuple[str, str]]:
    """(what, why) of one run."""
    found = []
    evaluated = run.now or run.before
    missing = [title for name, title in SETS.items() if evaluated and evaluated.get(name) is None]
    if missing:
        found.append(
            (f"Sets: {', '.join(missing)}", "the data does not have them; unlearn quality and utility leave them out.")
        )
    if evaluated.get("forget_truth") == "original answers":
        found.append(
            (
                "Ground truth",
                "the forget file has no answers: forget rows are held against the original model's own answers.",
            )
        )
    if not run.result:
        found.append(("The model now", "this run is not finished, so nothing was evaluated after unlearning."))
    elif not run.before:
        found.append(("The model before", "this is an evaluation of one checkpoint alone."))
    subset = run.frozen["settings"].get("evaluate.retain_rows")
    if subset and evaluated.get("rows", {}).get("retain") == subset:
        found.append(("The rest of retain", f"a seeded subset of {subset} rows was evaluated (evaluate.retain_rows)."))
    return found
