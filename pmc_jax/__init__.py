"""Unlearn a language model by partial model collapse, in JAX.

checkpoint = pmc_jax.load("meta-llama/Llama-3.2-1B-Instruct")
unlearned, history = pmc_jax.unlearn(checkpoint, forget, retain, config)
pmc_jax.export(unlearned, "out/")
"""

import importlib

__version__ = "0.1.0"

# Public name -> module; imported at first use, so that `import pmc_jax` is quick and starts no device.
_PUBLIC = {
    "load": "models.pretrained",
    "logits": "models.pretrained",
    "export": "models.pretrained",
    "PretrainedModel": "models.pretrained",
    "sample": "sampling.generate",
    "score": "methods.rewards",
    "select": "methods.selection",
    "unlearn": "methods.unlearn",
    "UserError": "errors",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"pmc_jax.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'pmc_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
