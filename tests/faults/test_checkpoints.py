"""Checkpoints whose files contradict each other, where one reading is right: transformers'."""

import json
import os

import jax
import numpy as np
import pytest
from folders import FILE, INDEX, change_json, make_folder, shard, tensors
from safetensors.numpy import save_file

import pmc_jax
from pmc_jax.data.prompts import Template, make_text, training_row
from pmc_jax.models import pretrained, probe
from pmc_jax.models.tensor_files import find_tensors
from pmc_jax.models.tokenizer_files import readable_config, same_tokenizer, tokenizer_files

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def read(folder, made, **changes):
    """(tied, tensors) as the probe reads a folder with these tensors."""
    save_file(made, folder / FILE)
    change_json(folder, **changes)
    raw = pretrained.read_json(folder / "config.json")
    family = pretrained.find_family(raw)
    model, raw, files = probe.read_head(family, probe.make_model(family, raw), raw, find_tensors(folder))
    assert raw["tie_word_embeddings"] == model.config.tied_head
    return model.config.tied_head, files


def test_a_head_of_its_own_where_config_says_tied(tokenizer, tmp_path):
    folder, made = make_folder(tmp_path / "c", tokenizer), tensors()
    assert read(folder, made | {HEAD: made[EMBED]})[0], "a copy"
    assert not read(folder, made | {HEAD: made[EMBED] * 2})[0]
    last = made[EMBED].copy()
    last[-1, -1] += 1
    assert not read(folder, made | {HEAD: last})[0], "one number differs"
    alone = {name: x for name, x in made.items() if name != EMBED} | {HEAD: made[EMBED]}
    tied, files = read(folder, alone)
    with files[EMBED].open(EMBED) as stored:
        assert tied and HEAD not in files and (stored[:] == made[EMBED]).all()
    assert not read(folder, made | {HEAD: made[EMBED]}, tie_word_embeddings=False)[0]


def test_an_untied_head_is_exported_as_one(tokenizer, tmp_path):
    made = tensors()
    folder = make_folder(tmp_path / "c", tokenizer, made | {HEAD: made[EMBED][::-1].copy()})
    checkpoint = pmc_jax.load(folder)
    assert (np.asarray(checkpoint.params["head"]) == made[EMBED][::-1]).all()
    out = pmc_jax.export(checkpoint, tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    again = pmc_jax.load(out)
    assert all((np.asarray(a) == b).all() for a, b in zip(*map(jax.tree.leaves, (again.params, checkpoint.params))))


def test_the_single_file_counts_beside_an_older_index(tokenizer, tmp_path):
    new, old = tensors(seed=1), tensors(seed=2)
    folder = make_folder(tmp_path / "c", tokenizer, new)
    shard(folder, old)
    assert {stored.file.name for stored in find_tensors(folder).values()} == {FILE}
    (folder / "model-00001-of-00002.safetensors").unlink()
    assert find_tensors(folder).keys() == new.keys(), "shards that are gone do not matter"
    (folder / FILE).unlink()
    shard(folder, old)
    assert {stored.file.name for stored in find_tensors(folder).values()} == {
        f"model-0000{i}-of-00002.safetensors" for i in (1, 2)
    }


def test_links_as_the_hub_s_cache_has_them(tokenizer, tmp_path):
    folder = make_folder(tmp_path / "snapshots" / "c", tokenizer)
    (tmp_path / "blobs").mkdir()
    os.replace(folder / FILE, tmp_path / "blobs" / "4d7a")
    (folder / FILE).symlink_to("../../blobs/4d7a")
    assert len(find_tensors(folder)) == 20


def test_tokenizer_files_are_exported_as_they_were(tokenizer, tmp_path):
    """transformers 5 would write a tokenizer_config.json that transformers 4 does not read."""
    folder = make_folder(tmp_path / "c", tokenizer)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config = readable_config(config) | {"clean_up_tokenization_spaces": True, "mine": [1, 2]}
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and "extra_special_tokens" not in config
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text('{"eos_token":  "<|end|>"}')
    checkpoint = pmc_jax.load(folder)
    out = pmc_jax.export(checkpoint, tmp_path / "out")
    names = {file.name for file in tokenizer_files(folder)}
    assert {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"} <= names
    for name in names:
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    checkpoint.tokenizer.add_tokens(["<new>"])
    other = pmc_jax.export(checkpoint, tmp_path / "other")
    assert "<new>" in (other / "tokenizer.json").read_text(), "a tokenizer that was changed is written anew"
    (folder / "tokenizer.json").unlink()
    for file in tokenizer_files(folder):
        file.unlink()
    assert "<new>" in (pmc_jax.export(checkpoint, tmp_path / "gone") / "tokenizer.json").read_text()


def test_what_is_written_for_transformers_4_is_the_same_tokenizer(tokenizer, tmp_path):
    from pmc_jax.models.tokenizer_files import load_tokenizer, write_tokenizer

    write_tokenizer(tokenizer, None, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not isinstance(config.get("extra_special_tokens"), list)
    again = load_tokenizer(tmp_path)
    assert same_tokenizer(again, tokenizer) and again.all_special_ids == tokenizer.all_special_ids


@pytest.mark.parametrize("kind", ["end", "begin and end", "separator"])
def test_no_prompt_ends_in_what_a_tokenizer_appends(plain_tokenizer, kind):
    import copy

    from tokenizers import processors

    mine = copy.deepcopy(plain_tokenizer)
    begin, end, header = (mine.convert_tokens_to_ids(t) for t in ("<|begin|>", "<|end|>", "<|role|>"))
    single = {"end": "$A <|end|>", "begin and end": "<|begin|> $A <|end|>", "separator": "$A <|role|>"}[kind]
    special = [("<|begin|>", begin), ("<|end|>", end), ("<|role|>", header)]
    mine.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    text = make_text(mine, Template("plain"), (end,))
    row = training_row(text, "Who?", "Me.", 100, group=1)
    start = "<|begin|>" if kind.startswith("begin") else ""
    assert mine.decode(row.tokens) == f"{start}Question: Who?\nAnswer: Me.<|end|>"
    assert row.tokens[row.start - 1] not in (end, header) and row.tokens[-1] == end


def test_a_picture_s_token_beyond_a_text_model_is_let_pass(tokenizer):
    """As Gemma-3 1B has it: one token more than its embedding has rows."""
    import copy

    mine = copy.deepcopy(tokenizer)
    mine.add_tokens(["<picture>"], special_tokens=True)
    with pytest.raises(pmc_jax.UserError, match=r"embedding of 512 rows lacks: '<picture>' = 512"):
        probe.check_tokenizer(mine, 512, "c")
    mine.image_token = "<picture>"
    probe.check_tokenizer(mine, 512, "c")
    assert INDEX.startswith(FILE)
