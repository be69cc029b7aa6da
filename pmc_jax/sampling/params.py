"""What is sampled: the settings that users know, and the part of them that programs are compiled for."""

import dataclasses
import math
import numbers
from typing import Any

from pmc_jax.errors import UserError

LARGEST = 10**6  # of a size; more is a slip of the pen, and no memory holds it


def check_number(name: str, value: Any, kind: type) -> None:
    """UserError for what is no finite number, or no whole one."""
    if not isinstance(value, kind) or isinstance(value, bool) or not math.isfinite(value):
        whole = "whole " if kind is numbers.Integral else ""
        raise UserError(f"{name}={value!r}: must be a {whole}number")


@dataclasses.dataclass(frozen=True)
class SamplingStrategy:
    """How next-token logits become a distribution: temperature, then top-k, then top-p. Static in the programs.

    Attributes:
        temperature: divides the logits; 0 = greedy.
        top_k: keep the k likeliest tokens, 0 = all.
        top_p: of those, keep the smallest head of the distribution that holds this probability, 1 = all.
        banned: tokens that are never drawn, before all of these; greedy neither.

    Raises:
        UserError: a value is out of bounds.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    banned: tuple[int, ...] = ()

    def __post_init__(self):
        check_number("sample.temperature", self.temperature, numbers.Real)
        check_number("sample.top_p", self.top_p, numbers.Real)
        check_number("sample.top_k", self.top_k, numbers.Integral)
        if not self.temperature >= 0:
            raise UserError(f"sample.temperature={self.temperature}: must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"sample.top_p={self.top_p}: must be in (0, 1]")
        if self.top_k < 0:
            raise UserError(f"sample.top_k={self.top_k}: must be 0 (off) or more")


GREEDY = SamplingStrategy(temperature=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """What to sample for each question.

    Attributes:
        num_samples: answers to each question.
        temperature: of the distribution; 0 = greedy, then top_k and top_p do not matter.
        top_k: as in `SamplingStrategy`.
        top_p: as in `SamplingStrategy`.
        max_new_tokens: longest answer, tokens.
        seed: draws are keyed by (seed, round, question, sample, position).
        banned: as in `SamplingStrategy`.

    Raises:
        UserError: a value is out of bounds.
    """

    num_samples: int = 1
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    max_new_tokens: int = 200
    seed: int = 0
    banned: tuple[int, ...] = ()

    def __post_init__(self):
        for name in ("num_samples", "max_new_tokens", "seed"):
            check_number(name, getattr(self, name), numbers.Integral)
        if self.seed < 0:
            raise UserError(f"seed={self.seed}: must be 0 or more")
        if not (1 <= self.num_samples <= LARGEST and 1 <= self.max_new_tokens <= LARGEST):
            sizes = f"num_samples={self.num_samples}, max_new_tokens={self.max_new_tokens}"
            raise UserError(f"{sizes}: both must be 1 or more, and {LARGEST} at most")
        _ = self.strategy  # checks the other values

    @property
    def strategy(self) -> SamplingStrategy:
        """The part that programs are compiled for."""
        strategy = SamplingStrategy(self.temperature, self.top_k, self.top_p) if self.temperature else GREEDY
        return dataclasses.replace(strategy, banned=self.banned)

    def replace(self, **changes: Any) -> "SamplingParams":
        """The same settings but for the changes."""
        return dataclasses.replace(self, **changes)
