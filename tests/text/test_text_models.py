"""Models that do not go together, or are not what they are taken for."""

import pytest
from needs import need

need("torch", "transformers")

import torch
from tiny_models import WORDS, base_model, make_tokenizer, reward_model

from vgf.support.errors import VGFError
from vgf.text import AlignSettings, load_models, models, pair
from vgf.text.models import load_reward_model, load_tokenizer
from vgf.text.tokens import differences


def test_folders_are_loaded_as_they_were_saved(folders, made):
    found = load_models(str(folders.sft), str(folders.rm))
    assert found.fingerprint == pair(made.sft, made.rm, made.tokenizer, made.tokenizer).fingerprint
    assert found.reward.dtype == torch.float64
    assert not any(weight.requires_grad for weight in found.reward.model.parameters())
    single = load_models(
        str(folders.sft), str(folders.rm), AlignSettings(sft_dtype="float32", rm_dtype="bfloat16")
    )
    assert single.language.model.dtype == torch.float32
    assert single.reward.model.dtype == torch.bfloat16
    assert single.reward.dtype == torch.float32
    assert single.fingerprint != found.fingerprint


def test_different_tokenizers(made):
    swapped = [*WORDS[:5], WORDS[6], WORDS[5], *WORDS[7:]]
    assert differences(made.tokenizer, make_tokenizer(swapped)) == ["w2", "w3"]
    assert differences(made.tokenizer, make_tokenizer([*WORDS, "extra"])) == ["extra"]
    assert pair(made.sft, made.rm, made.tokenizer, make_tokenizer(swapped)).bridge == "spans"
    other = make_tokenizer()
    other.add_tokens(["<more>"], special_tokens=True)
    assert pair(made.sft, made.rm, made.tokenizer, other).bridge is None


def test_no_padding_token(made, tmp_path):
    unpadded = make_tokenizer(bos_token="<end>")
    with pytest.raises(VGFError, match=r"no padding token; .* --pad-token, for example '<end>'"):
        pair(made.sft, made.rm, unpadded)
    unpadded.save_pretrained(tmp_path)
    with pytest.raises(VGFError, match="has no padding token"):
        load_tokenizer(str(tmp_path))
    assert load_tokenizer(str(tmp_path), "<end>").pad_token_id == 1
    with pytest.raises(VGFError, match="--pad-token '<nil>' is not a token"):
        load_tokenizer(str(tmp_path), "<nil>")


def test_no_head_of_one_output(made, folders, tmp_path):
    with pytest.raises(VGFError, match="has 2 outputs"):
        pair(made.sft, reward_model(num_labels=2), made.tokenizer)
    with pytest.raises(VGFError, match=r"not a reward model: it lacks .*score"):
        load_reward_model(str(folders.sft), "cpu", None)
    reward_model(num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(VGFError, match="has 3 outputs"):
        load_reward_model(str(tmp_path), "cpu", None)


def test_fewer_embeddings_than_tokens(made):
    with pytest.raises(VGFError, match="reward model has 40 token embeddings, and the token"):
        pair(made.sft, reward_model(vocab_size=40), made.tokenizer)
    with pytest.raises(VGFError, match="base model has 40"):
        pair(base_model(vocab_size=40), made.rm, made.tokenizer)


def test_more_embeddings_than_tokens_are_never_reached(made, settings):
    from vgf.text import align

    padded = pair(base_model(vocab_size=64), reward_model(vocab_size=56), made.tokenizer)
    (record,) = align(padded, ["w1"], settings)
    for group in (record["samples"], record["budgets"][-1]["candidates"]):
        assert max(max(row["tokens"]) for row in group) < len(WORDS)


def test_places_that_hold_no_model(tmp_path):
    with pytest.raises(VGFError, match=r"no such folder"):
        load_tokenizer(str(tmp_path / "absent"))
    with pytest.raises(VGFError, match="cannot be loaded by AutoTokenizer"):
        load_tokenizer(str(tmp_path))


def test_gguf_files_are_handed_to_transformers(tmp_path, monkeypatch):
    asked = {}
    kind = type("Kind", (), {"from_pretrained": staticmethod(lambda *a, **k: asked.update(k, a=a))})
    models._load(kind, str(tmp_path / "small.gguf"))
    assert asked == {"a": (str(tmp_path),), "gguf_file": "small.gguf"}
    with pytest.raises(VGFError, match="no such folder"):
        models._load(kind, str(tmp_path / "absent" / "small.gguf"))


def test_models_are_set_to_evaluation(made):
    made.rm.train()
    pair(made.sft, made.rm, made.tokenizer)
    assert not made.rm.training
