"""Every setting once: default, meaning (with unit), and check. Presets in configs/ start from `default()` and change
values.
"""

import copy
import difflib
import json
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from pmc_jax.errors import UserError


class Setting(NamedTuple):
    """One setting: dotted name, default, what it means, and (limit, test) that its value must pass."""

    name: str
    default: Any
    meaning: str
    limit: str = ""
    test: Any = None


def one_of(*choices: str) -> tuple[str, Any]:
    """Limit and test of a setting with a few allowed values."""
    return "one of " + ", ".join(repr(c) for c in choices), lambda v: v in choices


AT_LEAST_0 = ("0 or more", lambda v: v >= 0)
AT_LEAST_1 = ("1 or more", lambda v: v >= 1)
ABOVE_0 = ("more than 0", lambda v: v > 0)

SETTINGS = (
    Setting(
        "model.path", "", "checkpoint: hub id or local folder; empty = from scratch with model.scratch (finetune only)"
    ),
    Setting(
        "model.family",
        "",
        "what the checkpoint is read as: an architecture that pmc_jax knows, or module:FAMILY of your own; "
        "empty = by its config.json",
    ),
    Setting("model.scratch", {}, "from scratch: the config.json to build from, in Hugging Face's words"),
    Setting("model.dtype", "float32", "parameters and optimizer", *one_of("float32", "bfloat16")),
    Setting(
        "model.compute_dtype",
        "",
        "forward and backward pass, sampling; empty = model.dtype",
        *one_of("", "float32", "bfloat16"),
    ),
    Setting(
        "data.path", "locuslab/TOFU", "TOFU-shaped data: hub id or local folder of SPLIT.jsonl (.json, .csv, .parquet)"
    ),
    Setting("data.forget", "forget10", "split whose questions are unlearned"),
    Setting("data.retain", "retain90", "split that must stay"),
    Setting("data.finetune", "full", "splits that `finetune` trains on, joined by +"),
    Setting("data.forget_file", "", "your own forget file instead of the split: question, and answer if you have it"),
    Setting("data.retain_file", "", "your own retain file instead of the split: question, answer"),
    Setting(
        "prompt.style", "auto", "auto = chat where the tokenizer has a chat template", *one_of("auto", "chat", "plain")
    ),
    Setting("prompt.system", "You are a helpful assistant.", "chat: system prompt; empty = none"),
    Setting("prompt.date", "10 Apr 2025", "chat: the date templates print, pinned so that prompts do not drift"),
    Setting("prompt.template", "", "chat: which template, for a tokenizer with several; empty = 'default'"),
    Setting(
        "prompt.template_options",
        {},
        "chat: variables of the template, such as template_options.enable_thinking=False",
    ),
    Setting(
        "prompt.system_in",
        "auto",
        "chat: the system prompt is a turn, stands in front of the question (user), or is left out (none); auto = a "
        "turn where the template takes one, else user",
        *one_of("auto", "turn", "user", "none"),
    ),
    Setting("prompt.question_tag", "Question: ", "plain: before the question"),
    Setting("prompt.question_end", "\n", "plain: after the question"),
    Setting("prompt.answer_tag", "Answer: ", "plain: before the answer"),
    Setting(
        "prompt.tag_in",
        "answer",
        "plain: the answer tag is generated ('answer', as PMC) or given ('prompt')",
        *one_of("answer", "prompt"),
    ),
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
    Setting("pmc.retain_weight", 1.25, "PMC: weight of the retain loss (the paper's lambda)", *AT_LEAST_0),
    Setting(
        "pmc.questions_per_round",
        0,
        "questions sampled before the next updates; train.batch_size = the published algorithm, 0 = all",
        *AT_LEAST_0,
    ),
    Setting("pmc.selection", "lowest", "which sample is kept", *one_of("lowest", "bradley_terry")),
    Setting("pmc.selection_temperature", 0.1, "bradley_terry: softmax temperature of the rewards", *ABOVE_0),
    Setting(
        "pmc.reward",
        "rouge_l_recall",
        "score of what is left of the original answer: a name of docs/rewards.md, or module:attribute of your own",
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
    Setting("pmc.skip_solved", True, "a question whose stored score is 0 is not sampled again"),
    Setting("train.epochs", 30, "passes over the forget questions", *AT_LEAST_1),
    Setting("train.batch_size", 16, "forget rows an update; as many retain rows come on top", *AT_LEAST_1),
    Setting(
        "train.accumulate",
        0,
        "micro-batches an update is split into; 0 = one, on a CPU as many as keep to its cache",
        *AT_LEAST_0,
    ),
    Setting(
        "train.optimizer",
        "adamw",
        "adafactor keeps next to no state beside the parameters",
        *one_of("adamw", "adafactor"),
    ),
    Setting("train.moment_dtype", "", "AdamW's first moment; empty = model.dtype", *one_of("", "float32", "bfloat16")),
    Setting("train.learning_rate", 1e-5, "peak", *ABOVE_0),
    Setting("train.weight_decay", 0.01, "AdamW; not on biases and norms", *AT_LEAST_0),
    Setting("train.warmup_epochs", 1.0, "epochs until the peak rate; then linear to 0", *AT_LEAST_0),
    Setting("train.grad_clip", 1.0, "global gradient norm; 0 = off", *AT_LEAST_0),
    Setting(
        "train.max_length", 200, "tokens of a training row, its prompt included; longer answers are cut", *AT_LEAST_1
    ),
    Setting("train.remat", False, "recompute activations in the backward pass: less memory, about a third more work"),
    Setting(
        "lora.rank", 0, "train low-rank adapters of this rank instead of the weights; 0 = the weights", *AT_LEAST_0
    ),
    Setting("lora.alpha", 16.0, "adapters are scaled by alpha / rank", *ABOVE_0),
    Setting(
        "lora.targets",
        "all",
        "modules with adapters: all (every matrix of attention and MLP), or names as q_proj,v_proj",
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
        "evaluate: benchmarks, joined by commas: tofu, or module:attribute of your own; PMC's own measures always run",
    ),
    Setting("rounds.keep", 2, "saved rounds kept on disk", *AT_LEAST_1),
    Setting(
        "rounds.every",
        1,
        "rounds from one that is saved to the next; a stopped run goes on from the last saved one",
        *AT_LEAST_1,
    ),
    Setting(
        "mesh.data",
        -1,
        "devices that share the rows; -1 = all that are left",
        "-1, or 1 or more",
        lambda v: v == -1 or v >= 1,
    ),
    Setting("mesh.model", 1, "devices that share each weight", *AT_LEAST_1),
    Setting(
        "method",
        "pmc",
        "unlearning method: pmc, gradient_ascent, gradient_difference, npo, retain_only, ..., or your own objective as "
        "module:attribute",
    ),
    Setting("method_options", "", "hyperparameters of the method, such as beta=0.1,retain_weight=2; empty = its own"),
    Setting("seed", 0, "all randomness: draws, order of questions, retain rows", *AT_LEAST_0),
)
NAMES = [s.name for s in SETTINGS]
DEFAULTS = {s.name: s.default for s in SETTINGS}
DICTS = [s.name for s in SETTINGS if isinstance(s.default, dict)]  # settings with keys of the user's own
RENAMED = {"pmc.drop_losers": "pmc.prune_candidates"}  # old workdirs have the old names


def default() -> ConfigDict:
    """All settings at their defaults, locked: an unknown name is an error."""
    tree: dict[str, Any] = {}
    for setting in SETTINGS:
        section, _, name = setting.name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = copy.deepcopy(setting.default)
    config = ConfigDict(tree).lock()
    for name in DICTS:
        lookup(config, name).unlock()
    return config


def lookup(config: ConfigDict, name: str) -> Any:
    """The value of a dotted name."""
    for part in name.split("."):
        config = config[part]
    return config


def check(config: ConfigDict) -> ConfigDict:
    """The same config, or a UserError that names the first setting whose value is out of bounds."""
    for setting in SETTINGS:
        value = lookup(config, setting.name)
        if setting.test and not setting.test(value):
            raise UserError(f"{setting.name}={value!r}: must be {setting.limit} ({setting.meaning})")
    if 0 < config.pmc.questions_per_round < config.train.batch_size:
        raise UserError(
            f"pmc.questions_per_round={config.pmc.questions_per_round}: must be at least "
            f"train.batch_size={config.train.batch_size}, or 0 for all"
        )
    return config


def changed(config: ConfigDict, values: dict[str, Any]) -> ConfigDict:
    """The config with some dotted names set anew."""
    return from_flat(to_flat(config) | values)


def to_flat(config: ConfigDict) -> dict[str, Any]:
    """{dotted name: value} in the order of SETTINGS, JSON-ready."""
    values = {s.name: lookup(config, s.name) for s in SETTINGS}
    return {k: json.loads(v.to_json()) if isinstance(v, ConfigDict) else v for k, v in values.items()}


def current_names(values: dict[str, Any]) -> dict[str, Any]:
    """The same values, each under the name that its setting has today."""
    return {RENAMED.get(name, name): value for name, value in values.items()}


def from_flat(values: dict[str, Any]) -> ConfigDict:
    """The config whose `to_flat` is `values`; names of earlier versions are read too."""
    values, config = current_names(values), default()
    config.update_from_flattened_dict({k: v for k, v in values.items() if k not in DICTS})
    for name in DICTS:
        lookup(config, name).update(values.get(name, {}))
    return config


def describe(sections: tuple[str, ...] = ()) -> str:
    """The settings as a table for --help; those of some sections, or all."""
    lines = []
    for s in SETTINGS:
        if sections and s.name.split(".")[0] not in sections:
            continue
        lines.append(f"  --config.{s.name}={s.default!r}\n        {s.meaning}" + (f" [{s.limit}]" if s.limit else ""))
    return "\n".join(lines)


def suggest(name: str) -> str:
    """What an unknown name may stand for, to end an error message with."""
    if name in RENAMED:
        return f"; it is called {RENAMED[name]} now"
    close = difflib.get_close_matches(name, NAMES, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


get_config = default  # what the --config flag falls back to, when no preset is named
