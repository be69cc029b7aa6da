"""What torch and transformers compute for the golden checkpoints.

    python tests/golden_torch.py

remakes tests/golden/.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden import (
    ANSWER_TOKENS,
    CONFIGS,
    PAD,
    RETAIN_WEIGHT,
    STORED,
    gradient_rows,
    logit_inputs,
    prompts,
    save_checkpoint,
)


def torch_loss(model: Any, rows: list[tuple[list[int], int, int]], retain_weight: float) -> Any:
    """The objective in torch, one row a forward pass: each group's mean of -log p over its answer tokens, weighted."""
    total, count = {1: 0.0, 2: 0.0}, {1: 0, 2: 0}
    for tokens, start, group, *_ in rows:
        logits = model(torch.tensor([tokens])).logits[0].float()
        total[group] = total[group] + torch.nn.functional.cross_entropy(
            logits[start - 1 : -1], torch.tensor(tokens[start:]), reduction="sum"
        )
        count[group] += len(tokens) - start
    return total[1] / max(count[1], 1) + retain_weight * total[2] / max(count[2], 1)


def torch_logits(model: Any, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Logits in float32, 0 at padding.

    Row by row, shortest first, without the padding: dynamic RoPE there depends on the longest row seen.
    """
    logits = np.zeros((*tokens.shape, model.config.vocab_size), np.float32)
    with torch.no_grad():
        for row in np.argsort(mask.sum(1), kind="stable"):
            logits[row, mask[row]] = model(torch.tensor(tokens[row][mask[row]])[None]).logits[0].float().numpy()
    return logits


def torch_greedy(model: Any, prompt: list[int]) -> tuple[list[int], float]:
    """The greedy answer, and the smallest gap between the two largest logits on the way."""
    out = model.generate(
        torch.tensor([prompt]),
        max_new_tokens=ANSWER_TOKENS,
        do_sample=False,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=PAD,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(out.logits)[:, 0].topk(2).values
    return out.sequences[0, len(prompt) :].tolist(), float((best[:, 0] - best[:, 1]).min())


def compute(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All golden values, with torch: ({config: logits}, {config: loss, gradient norms by tensor, greedy answers})."""
    from transformers import AutoModelForCausalLM

    logits, values = {}, {}
    for name in CONFIGS:
        model = AutoModelForCausalLM.from_pretrained(
            save_checkpoint(folder / name, name), dtype=torch.float32, attn_implementation="eager"
        ).eval()
        logits[name] = torch_logits(model, *logit_inputs())
        loss = torch_loss(model, gradient_rows(), RETAIN_WEIGHT)
        loss.backward()
        norms = {n: float(p.grad.norm()) for n, p in model.named_parameters()}
        answers, gaps = zip(*(torch_greedy(model, p) for p in prompts()))
        values[name] = {"loss": loss.item(), "gradient_norms": norms, "greedy": list(answers), "least_gap": min(gaps)}
    return logits, values


def main() -> None:
    """Remake tests/golden/."""
    with tempfile.TemporaryDirectory() as folder:
        logits, values = compute(Path(folder))
    STORED.mkdir(exist_ok=True)
    np.savez_compressed(STORED / "logits.npz", **logits)
    (STORED / "values.json").write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
