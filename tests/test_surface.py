import json
import types

import numpy as np
import pytest

import pmc_jax
from pmc_jax.errors import UserError
from pmc_jax.models.tokenizer_files import load_tokenizer

QUICK = """
import sys
import pmc_jax
third_party = sorted({m.split(".")[0] for m in sys.modules} - sys.stdlib_module_names - set(sys.argv[1:]) - {"pmc_jax"})
import pmc_jax.config, pmc_jax.errors, pmc_jax.sampling.draw, pmc_jax.sampling.generate, pmc_jax.main
import jax
from jax._src import xla_bridge
print(",".join(third_party), bool(xla_bridge._backends), "transformers" in sys.modules)
"""


BARE = "import sys; print(*{m.split('.')[0] for m in sys.modules})"
COMMAND_LINE = """
import sys
import pmc_jax.main
print(*{m.split(".")[0] for m in sys.modules} & {"jax", "flax", "transformers", "datasets", "torch", "orbax", "scipy"})
"""


def test_the_import_is_quick_and_starts_no_device(python):
    """It loads no library at all, beyond what every interpreter here starts with."""
    done = python(QUICK, *python(BARE).stdout.split())
    assert done.returncode == 0, done.stderr
    third_party, devices, transformers = done.stdout.strip("\n").split(" ")
    assert third_party == "" and devices == "False" and transformers == "False"


def test_the_command_line_loads_no_library_of_arrays_before_it_must(python):
    done = python(COMMAND_LINE)
    assert done.returncode == 0 and not done.stdout.strip(), done.stdout + done.stderr


def test_every_public_name_is_there_and_documented():
    assert {"load", "logits", "sample", "score", "select", "unlearn", "export", "UserError", "__version__"} <= set(
        pmc_jax.__all__
    )
    for name in pmc_jax.__all__:
        value = getattr(pmc_jax, name)
        assert name == "__version__" or value.__doc__, name
    assert set(pmc_jax.__all__) <= set(dir(pmc_jax))
    with pytest.raises(AttributeError, match="no attribute 'unlern'"):
        _ = pmc_jax.unlern


SHADOWS = """
import pmc_jax
import pmc_jax.sampling.generate, pmc_jax.sampling.engine, pmc_jax.methods.rewards
import pmc_jax.methods.unlearn, pmc_jax.main
import pmc_jax.runs.unlearn, pmc_jax.models.pretrained, pmc_jax.methods.finetune
for name in ("sample", "score", "select", "load", "logits", "unlearn", "export"):
    assert type(getattr(pmc_jax, name)).__name__ == "function", name
"""


def test_functions_are_not_shadowed_by_modules(python):
    done = python(SHADOWS)
    assert done.returncode == 0, done.stderr


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError) and pmc_jax.UserError is UserError


def padded(rows, width, side):
    tokens, mask = np.full((len(rows), width), 11, np.int32), np.zeros((len(rows), width), bool)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        tokens[i, place], mask[i, place] = row, True
    return tokens, mask


@pytest.mark.parametrize("which", ["tiny_checkpoint", "tiny_phi"])
def test_padding_on_either_side_gives_the_same_logits(which, request):
    checkpoint = request.getfixturevalue(which)
    rows = [np.random.default_rng(n).integers(5, 500, n).tolist() for n in (3, 17, 24)]
    width = 24
    left, right = (np.asarray(pmc_jax.logits(checkpoint, *padded(rows, width, side))) for side in ("left", "right"))
    assert left.shape == (3, width, checkpoint.config.vocab_size) and left.dtype == np.float32
    for i, row in enumerate(rows):
        np.testing.assert_allclose(left[i, width - len(row) :], right[i, : len(row)], atol=1e-4)
    alone = np.asarray(pmc_jax.logits(checkpoint, [rows[2]]))
    np.testing.assert_allclose(alone[0], left[2], atol=1e-4)
    assert np.isfinite(left).all()


def test_logits_are_causal(tiny_checkpoint):
    tokens = np.random.default_rng(0).integers(5, 500, (1, 20))
    changed = tokens.copy()
    changed[0, 12] = (changed[0, 12] + 1) % 500
    one, other = (np.asarray(pmc_jax.logits(tiny_checkpoint, t))[0] for t in (tokens, changed))
    assert (one[:12] == other[:12]).all() and not np.allclose(one[12], other[12])


def test_the_readme_of_the_surface_in_one_go(tiny_folder, forget_questions, splits, small, tmp_path):
    """load -> sample -> score -> unlearn -> export -> load, as documented."""
    checkpoint = pmc_jax.load(str(tiny_folder))
    assert (
        isinstance(checkpoint.params, dict)
        and checkpoint.tokenizer
        and checkpoint.config.vocab_size == 512
        and checkpoint.model
    )
    references = [a[0] for a in pmc_jax.sample(checkpoint, forget_questions, temperature=0.0, max_new_tokens=64)]
    scores_QS = pmc_jax.score(references, [[r, "something else"] for r in references])
    assert scores_QS.shape == (8, 2) and (scores_QS[:, 0] == 1).all()
    unlearned, history = pmc_jax.unlearn(checkpoint, forget_questions, splits["retain80"], small())
    folder = pmc_jax.export(unlearned, tmp_path / "out")
    again = pmc_jax.load(str(folder))
    now = pmc_jax.sample(again, forget_questions, temperature=0.0, max_new_tokens=64)
    assert now == pmc_jax.sample(unlearned, forget_questions, temperature=0.0, max_new_tokens=64)
    assert pmc_jax.score(references, now).mean() < 0.9 and len(history) == 4
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_what_unlearn_refuses(splits, small):
    nothing = types.SimpleNamespace()
    forget, retain = splits["forget20"], splits["retain80"]
    for args, word in [
        (([], retain, small()), "forget"),
        ((forget, [], small()), "retain"),
        (([{"answer": "a"}], retain, small()), "forget, row 1: 'question' is missing"),
        ((forget, [{"question": "q"}], small()), "retain, row 1: 'answer' is missing"),
        ((forget, retain, small({"train.batch_size": 9})), "train.batch_size=9: there are only 8"),
        ((forget, retain, small({"pmc.questions_per_round": 9})), "pmc.questions_per_round=9: there are only 8"),
        ((forget, retain, small({"sample.num_samples": 0})), "sample.num_samples=0"),
        ((forget, retain, small({"sample.temperature": -1.0})), "sample.temperature=-1.0"),
    ]:
        with pytest.raises(UserError, match="(?s)" + word) as caught:
            pmc_jax.unlearn(nothing, *args)
        assert "\n" not in str(caught.value)


def test_the_generic_tokenizer_is_read_without_looking_through_every_model(tiny_folder, monkeypatch):
    import transformers

    slow = transformers.AutoTokenizer.from_pretrained(tiny_folder)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", None)
    quick = load_tokenizer(tiny_folder)
    text = "Who wrote it? Rocío 12 ...\n"
    assert quick(text)["input_ids"] == slow(text)["input_ids"]
    assert (quick.eos_token_id, quick.chat_template) == (slow.eos_token_id, slow.chat_template)
