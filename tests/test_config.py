import importlib.util
import json
import math
from pathlib import Path

import pytest

from pmc_jax import config as settings
from pmc_jax import main
from pmc_jax.errors import UserError
from pmc_jax.runs.presets import find_preset
from pmc_jax.training.objectives import OBJECTIVES

PRESETS = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
CHECKED = [s for s in settings.SETTINGS if s.test]


def load(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def preset(file):
    return load(file).get_config()


@pytest.mark.parametrize("file", PRESETS, ids=lambda f: f.stem)
def test_every_preset_passes_the_checks(file):
    config = preset(file)
    assert settings.check(config) is config
    with pytest.raises((KeyError, AttributeError)):
        config.sample.num_sample = 3  # presets stay locked: a misspelt setting is an error


def test_every_rival_has_a_recipe():
    """And the word behind the colon reaches it."""
    (rivals,) = (f for f in PRESETS if f.stem == "rivals")
    module = load(rivals)
    assert module.OWN.keys() == OBJECTIVES.keys() - {"pmc", "cross_entropy"}
    for method in module.OWN:
        config = settings.check(module.get_config(method))
        assert config.method == method and config.train.warmup_epochs == 1.0
    assert find_preset("rivals:npo") == f"{rivals}:npo" == find_preset(f"{rivals}:npo")
    with pytest.raises(ValueError, match="rivals:nop: choose one of"):
        module.get_config("nop")


def test_the_published_settings():
    """pmc.md, "config of the published runs"."""
    by_name = {f.stem: preset(f) for f in PRESETS}
    assert {"tofu", "tofu_llama", "tofu_phi", "demo"} <= by_name.keys()
    wanted = {"tofu_phi": (1.5, 1.25, 5, 0.95, 40, 64, 1e-5), "tofu_llama": (1.25, 0.9, 20, 0.95, 30, 16, 1e-5)}
    for name, values in wanted.items():
        c = by_name[name]
        t, s = c.train, c.sample
        assert (
            c.pmc.retain_weight,
            s.temperature,
            s.num_samples,
            s.top_p,
            t.epochs,
            t.batch_size,
            t.learning_rate,
        ) == values
        assert (s.top_k, t.weight_decay, t.warmup_epochs, t.grad_clip, t.max_length) == (50, 0.01, 1.0, 1.0, 200)


def test_the_names_that_users_rely_on():
    names = (
        "model.path model.dtype data.path data.forget data.retain data.forget_file data.retain_file "
        "sample.num_samples sample.temperature "
    )
    names += (
        "sample.top_p sample.top_k sample.max_new_tokens pmc.retain_weight pmc.questions_per_round "
        "pmc.selection pmc.reward pmc.min_words "
    )
    names += (
        "pmc.keep_best pmc.skip_solved train.epochs train.batch_size train.learning_rate train.weight_decay "
        "train.warmup_epochs "
    )
    names += "train.grad_clip method seed"
    known = [s.name for s in settings.SETTINGS]
    assert set(names.split()) <= set(known) and len(set(known)) == len(known)


def bad_values(setting):
    """Values just outside the limit, found from the default's type and the documented limit."""
    if isinstance(setting.default, str):
        return ["no such choice"]
    return {
        "0 or more": [-1],
        "0 to 100": [-1, 101],
        "1 or more": [0, -3],
        "more than 0": [0, -1],
        "in (0, 1]": [0, 1.5, -0.1],
        "0 to 1": [-0.1, 1.5],
        "-1, or 1 or more": [0, -2],
    }[setting.limit]


@pytest.mark.parametrize("setting", CHECKED, ids=lambda s: s.name)
def test_every_check_refuses_by_name_what_is_out_of_bounds(setting):
    for value in bad_values(setting):
        config = settings.default()
        config.update_from_flattened_dict({setting.name: type(setting.default)(value)})
        with pytest.raises(UserError) as caught:
            settings.check(config)
        message = str(caught.value)
        assert (
            message.startswith(f"{setting.name}={type(setting.default)(value)!r}: must be {setting.limit}")
            and "\n" not in message
        )


@pytest.mark.parametrize("setting", [s for s in CHECKED if isinstance(s.default, float)], ids=lambda s: s.name)
def test_not_a_number_is_refused(setting):
    config = settings.default()
    config.update_from_flattened_dict({setting.name: math.nan})
    with pytest.raises(UserError, match=setting.name):
        settings.check(config)


def test_every_number_has_a_check_and_every_default_passes():
    for setting in settings.SETTINGS:
        assert setting.meaning
        if type(setting.default) in (int, float):
            assert setting.test and setting.limit, setting.name
    assert settings.check(settings.default())


def test_a_round_is_no_smaller_than_a_batch():
    config = settings.default()
    config.pmc.questions_per_round, config.train.batch_size = 4, 8
    with pytest.raises(UserError, match=r"pmc.questions_per_round=4.*train.batch_size=8"):
        settings.check(config)
    for size in (0, 8, 9):
        config.pmc.questions_per_round = size
        settings.check(config)


def test_unknown_names_and_wrong_types_are_errors():
    config = settings.default()
    with pytest.raises(AttributeError):
        config.sample.num_sample = 3
    with pytest.raises(TypeError):
        config.sample.num_samples = "three"
    assert "sample.num_samples" in settings.suggest("sample.num_sample") and settings.suggest("zzzzzz") == ""


def test_defaults_are_fresh_each_time():
    first = settings.default()
    first.train.epochs = 99
    first.model.scratch.vocab_size = 7
    assert settings.default().train.epochs != 99 and not settings.default().model.scratch


def test_options_of_the_chat_template_are_a_dict_of_any_names():
    config = settings.default()
    config.prompt.template_options.enable_thinking = False
    flat = settings.to_flat(config)
    assert flat["prompt.template_options"] == {"enable_thinking": False}
    assert settings.to_flat(settings.from_flat(json.loads(json.dumps(flat)))) == flat
    old = {name: value for name, value in flat.items() if name != "prompt.template_options"}
    assert settings.to_flat(settings.from_flat(old))["prompt.template_options"] == {}


def test_options_of_the_command_line_become_one_word():
    words = ["--seed=1", "thinking=False", "effort=low", "depth=3", "fast"]
    words[1:] = [f"--config.prompt.template_options.{word}" for word in words[1:]]
    options = {"thinking": False, "effort": "low", "depth": 3, "fast": True}
    assert main.joined_options(words) == ["--seed=1", f"--config.prompt.template_options={options!r}"]
    assert main.joined_options(["--seed=1"]) == ["--seed=1"]
    main.check_words("unlearn", words[1:])
    with pytest.raises(UserError, match=r"no setting 'prompt\.template_option\.x'"):
        main.check_words("unlearn", ["--config.prompt.template_option.x=1"])


@pytest.mark.parametrize("file", PRESETS, ids=lambda f: f.stem)
def test_flat_and_back(file):
    config = preset(file)
    config.sample.temperature, config.data.forget_file, config.train.remat = 1.7, "mine.jsonl", True
    flat = settings.to_flat(config)
    assert list(flat) == [s.name for s in settings.SETTINGS]
    assert settings.to_flat(settings.from_flat(json.loads(json.dumps(flat)))) == flat
    assert flat["sample.temperature"] == 1.7 and flat["train.remat"] is True


def test_the_help_text_names_every_setting_with_its_default():
    text = settings.describe()
    for setting in settings.SETTINGS:
        assert f"--config.{setting.name}={setting.default!r}" in text and setting.meaning in text


def test_settings_of_earlier_versions_are_read():
    flat = settings.to_flat(settings.default())
    for old, new in settings.RENAMED.items():
        assert new in settings.NAMES and old not in settings.NAMES
        other = not flat[new]
        earlier = {name: value for name, value in flat.items() if name != new} | {old: other}
        assert settings.to_flat(settings.from_flat(earlier)) == flat | {new: other}
        assert new in settings.suggest(old)
