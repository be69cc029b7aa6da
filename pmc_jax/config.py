"""All settings together: default, meaning (with unit), and check, from the tables in settings/. Presets in configs/
start from `default()` and change values.
"""

import copy
import difflib
import json
import math
from typing import Any

from ml_collections import ConfigDict

from pmc_jax.errors import UserError
from pmc_jax.settings.comparison import COMPARISON
from pmc_jax.settings.evaluation import EVALUATION
from pmc_jax.settings.inputs import INPUTS
from pmc_jax.settings.paths import PATHS, absolute
from pmc_jax.settings.run import RUN
from pmc_jax.settings.sampling import PMC, SAMPLING
from pmc_jax.settings.training import TRAINING

SETTINGS = (*INPUTS, *SAMPLING, *PMC, *TRAINING, *EVALUATION, *RUN)
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
    if not isinstance(config, ConfigDict):
        raise UserError(f"config: a {type(config).__name__}; change values of pmc_jax.config.default() and give that")
    for setting in SETTINGS:
        try:
            value = lookup(config, setting.name)
        except (KeyError, AttributeError, TypeError):
            raise UserError(f"config: has no {setting.name}; start from pmc_jax.config.default()") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{setting.name}={value}: must be a finite number ({setting.meaning})")
        if setting.test and not setting.test(value):
            raise UserError(f"{setting.name}={value!r}: must be {setting.limit} ({setting.meaning})")
    if 0 < config.pmc.questions_per_round < config.train.batch_size:
        raise UserError(
            f"pmc.questions_per_round={config.pmc.questions_per_round}: must be at least "
            f"train.batch_size={config.train.batch_size}, or 0 for all"
        )
    if config.pmc.prefix_low > config.pmc.prefix_high:
        raise UserError(
            f"pmc.prefix_low={config.pmc.prefix_low}: must be at most pmc.prefix_high={config.pmc.prefix_high}"
        )
    if config.pmc.refusal_margin and config.pmc.prefix_rows:
        raise UserError(
            f"pmc.refusal_margin={config.pmc.refusal_margin}: what follows the first words of an answer is no refusal; "
            "leave out pmc.prefix_rows"
        )
    if config.train.gather_once and config.lora.rank:
        raise UserError("train.gather_once: it is for trained weights, not for adapters; leave out lora.rank")
    window = config.data.text_window + config.sample.max_new_tokens
    if config.data.text_window and window >= config.train.max_length:
        raise UserError(
            f"data.text_window + sample.max_new_tokens = {window}: must be less than "
            f"train.max_length={config.train.max_length}, in which a window has to fit"
        )
    if config.data.text_window and (config.data.topic or config.data.subject):
        raise UserError("data.text_window: a topic is asked about in questions; leave out data.topic and data.subject")
    for name in ("guard.min_utility", "evaluate.keep_best"):
        if lookup(config, name) and not config.evaluate.every:
            raise UserError(
                f"{name}={lookup(config, name)}: needs evaluations during the run; set evaluate.every, such as 1 for "
                "each round"
            )
    return config


def changed(config: ConfigDict, values: dict[str, Any]) -> ConfigDict:
    """The config with some dotted names set anew."""
    return from_flat(to_flat(config) | values)


def with_whole_paths(config: ConfigDict) -> ConfigDict:
    """The config with paths that hold in any folder and any shell."""
    values = {name: lookup(config, name) for name in PATHS}
    return changed(config, {name: absolute(value) for name, value in values.items() if value})


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
    for s in (*COMPARISON, *SETTINGS) if sections else SETTINGS:
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
