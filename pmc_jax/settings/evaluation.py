"""Settings of evaluation."""

from pmc_jax.settings.setting import AT_LEAST_0, AT_LEAST_1, SHARE, Setting, names_in, one_of

EVALUATION = (
    Setting(
        "evaluate.score",
        "rouge_l_recall",
        "what unlearn quality, utility, leakage and relearning count; content_recall sees every script, and always "
        "stands beside",
        *one_of("rouge_l_recall", "content_recall"),
    ),
    Setting("evaluate.max_new_tokens", 200, "longest greedy answer, tokens", *AT_LEAST_1),
    Setting(
        "evaluate.retain_rows", 400, "retain rows evaluated, a seeded subset without replacement; 0 = all", *AT_LEAST_0
    ),
    Setting(
        "evaluate.every",
        0,
        "unlearn: rounds between evaluations during the run, for the curves; 0 = before and after only",
        *AT_LEAST_0,
    ),
    Setting(
        "evaluate.keep_best",
        False,
        "unlearn: the round with the best unlearn quality is exported, of those whose utility is not too low, instead "
        "of the last one; needs evaluate.every",
    ),
    Setting(
        "evaluate.keep_best_utility",
        0.95,
        "evaluate.keep_best: the lowest utility that counts, as a share of the original model's",
        *SHARE,
    ),
    Setting(
        "evaluate.leak_samples",
        100,
        "evaluate: answers sampled per forget question to look for leaks; 0 = off",
        *AT_LEAST_0,
    ),
    Setting(
        "evaluate.relearn_rows", 4, "evaluate: forget rows that a relearning attack trains on; 0 = off", *AT_LEAST_0
    ),
    Setting("evaluate.relearn_updates", 20, "evaluate: updates of the relearning attack", *AT_LEAST_1),
    Setting(
        "evaluate.retain_model",
        "",
        "evaluate: checkpoint that never saw the forget set, for forget quality, privacy leak, reference attack",
    ),
    Setting(
        "evaluate.original_model",
        "",
        "evaluate: checkpoint from before unlearning, for drift and what became of neighbouring knowledge",
    ),
    Setting(
        "evaluate.benchmarks",
        "tofu",
        "evaluate: benchmarks, joined by commas: tofu, lume, muse, rwku, wmdp, mmlu, arc, or module:attribute of your "
        "own; PMC's own measures always run",
    ),
    Setting(
        "evaluate.quantise",
        "",
        "evaluate: the model is rounded to these, such as int8,int4, and asked again; empty = off",
        "int8, int4, or both joined by a comma",
        lambda v: set(names_in(v)) <= {"int8", "int4"},
    ),
    Setting(
        "evaluate.choices",
        "",
        "evaluate: multiple choice of your own for general ability: file, folder or hub id; question, choices, answer",
    ),
    Setting(
        "evaluate.muse_auc",
        0.0,
        "evaluate: AUC of MUSE's attack on a model that never saw the forget texts, as MUSE counts it, where "
        "evaluate.retain_model is not given; 0 = not known",
        *SHARE,
    ),
    Setting(
        "evaluate.harness",
        "",
        "evaluate: tasks of lm-evaluation-harness, joined by commas, names or YAML files; needs the extra harness",
    ),
    Setting("evaluate.harness_limit", 0, "evaluate: rows of each task of the harness; 0 = all", *AT_LEAST_0),
    Setting("evaluate.choices_split", "all/test", "evaluate: the split of evaluate.choices, where that is no file"),
    Setting("evaluate.wmdp", "cais/wmdp", "evaluate: the data of the benchmark wmdp: hub id, or a folder like it"),
    Setting("evaluate.mmlu", "cais/mmlu", "evaluate: the data of the benchmark mmlu: hub id, or a folder like it"),
    Setting("evaluate.arc", "allenai/ai2_arc", "evaluate: the data of the benchmark arc: hub id, or a folder like it"),
)
