"""Settings of sampling and of PMC, whose rounds sample."""

from pmc_jax.settings.setting import ABOVE_0, AT_LEAST_0, AT_LEAST_1, SHARE, Setting, one_of

SAMPLING = (
    Setting("sample.num_samples", 20, "answers sampled per question and round", *AT_LEAST_1),
    Setting("sample.temperature", 0.9, "softmax temperature; 0 = greedy", *AT_LEAST_0),
    Setting(
        "sample.top_p",
        0.95,
        "nucleus: keep the likeliest tokens that hold this probability",
        "in (0, 1]",
        lambda v: 0 < v <= 1,
    ),
    Setting("sample.top_k", 50, "keep the k likeliest tokens; 0 = all", *AT_LEAST_0),
    Setting("sample.max_new_tokens", 128, "longest sampled answer, tokens", *AT_LEAST_1),
    Setting("sample.max_rows", 256, "answers decoded at once on each data shard", *AT_LEAST_1),
)

PMC = (
    Setting("pmc.retain_weight", 1.25, "PMC: weight of the retain loss (the paper's lambda)", *AT_LEAST_0),
    Setting(
        "pmc.kl_weight",
        0.0,
        "PMC: weight of KL(original model || model) on the retain answers; 0 = off, as the paper",
        *AT_LEAST_0,
    ),
    Setting("pmc.retain_rows", 1, "PMC: retain rows beside each forget row of an update", *AT_LEAST_1),
    Setting(
        "pmc.questions_per_round",
        0,
        "questions sampled before the next updates; train.batch_size = the published algorithm, 0 = all",
        *AT_LEAST_0,
    ),
    Setting(
        "pmc.prefix_rows",
        0,
        "prefix-PMC: prompts beside each forget question in which the first words of the model's own answer are given "
        "already; 0 = off, as the paper",
        *AT_LEAST_0,
    ),
    Setting("pmc.prefix_low", 0.0, "prefix-PMC: least share of the answer's words that is given; one at least", *SHARE),
    Setting(
        "pmc.prefix_high", 1.0, "prefix-PMC: largest share of the answer's words that is given; never the last", *SHARE
    ),
    Setting("pmc.selection", "lowest", "which sample is kept", *one_of("lowest", "bradley_terry")),
    Setting("pmc.selection_temperature", 0.1, "bradley_terry: softmax temperature of the rewards", *ABOVE_0),
    Setting(
        "pmc.reward",
        "rouge_l_recall",
        "score of what is left of the original answer: a name of docs/rewards.md, or module:attribute of your own",
    ),
    Setting(
        "pmc.refusal_weight",
        0.0,
        "PMC-alignment: weight of a refusal to each forget question, fading out as it is solved; 0 = plain PMC, .5 as "
        "its authors (with pmc.min_words=5)",
        *AT_LEAST_0,
    ),
    Setting(
        "pmc.refusals",
        "",
        "PMC-alignment, idk, dpo: your own refusals, a text file with one a line; empty = the package's",
    ),
    Setting(
        "pmc.refusal_margin",
        0.0,
        "PMC-alignment: a refusal's score is lowered by this much, so that it is kept before another answer that holds "
        "as little; 0 = off, as its authors",
        *SHARE,
    ),
    Setting("pmc.min_words", 0, "shorter answers are penalised; 0 = off", *AT_LEAST_0),
    Setting("pmc.keep_best", True, "a new pick replaces the stored answer only if it scores no worse"),
    Setting(
        "pmc.prune_candidates",
        True,
        "a sample that can no longer be the one kept is not drawn to its end; what is kept stays the same",
    ),
    Setting(
        "pmc.measure_every",
        5,
        "epochs between rewards measured on samples that are drawn to their end whatever they hold",
        *AT_LEAST_1,
    ),
    Setting("pmc.skip_solved", True, "a question whose kept answer scores 0 is not sampled again"),
    Setting(
        "pmc.stop_solved",
        0,
        "epochs that a run goes on at a falling rate once nine of ten questions are solved, and their answers learnt; "
        "0 = all epochs are run",
        *AT_LEAST_0,
    ),
)
