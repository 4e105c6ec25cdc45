"""Checkpoints and models as users have them: incomplete, adapted, of other kinds."""

import pytest
from needs import need

need("torch", "transformers")

import dataclasses
import json
import shutil

import torch
from safetensors.torch import load_file, save_file
from tiny_models import PROMPTS, WORDS, base_model, make_tokenizer, reward_model
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from vgf.support.errors import VGFError
from vgf.text import AlignSettings, align, load_judge, load_models, models, pair
from vgf.text.models import load_reward_model
from vgf.text.reward import RewardModel, position_limit

change = dataclasses.replace
SMALL = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def saved(folder, model):
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("of", "part", "message"),
    [
        ("sft", "embed_out", "lacks 1 weights of CausalLM, such as "),
        ("sft", "layers.1.", r"lacks \d+ weights of CausalLM, such as gpt_neox.layers.1"),
        ("sft", "layers.0.mlp.dense_4h_to_h.bias", "lacks 1 weights"),
        ("rm", "layers.1.", r"lacks \d+ weights of SequenceClassification"),
        ("rm", "score", "not a reward model: it lacks score.weight"),
        ("rm", "embed_in", "lacks 1 weights"),
    ],
)
def test_a_missing_weight_is_refused(tmp_path, of, part, message):
    place = {
        "sft": saved(tmp_path / "sft", base_model()),
        "rm": saved(tmp_path / "rm", reward_model()),
    }
    file = tmp_path / of / "model.safetensors"
    kept = {name: x for name, x in load_file(file).items() if part not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(VGFError, match=message):
        load_models(place["sft"], place["rm"])


def test_weights_that_are_tied_are_not_missing(tmp_path):
    base = base_model(tie_word_embeddings=True)
    place = saved(tmp_path / "sft", base)
    found = load_models(place, saved(tmp_path / "rm", reward_model()))
    weight = found.language.model.get_output_embeddings().weight
    assert torch.equal(weight, base.get_input_embeddings().weight)


def test_models_that_write_otherwise_are_refused(tmp_path, made):
    rm = saved(tmp_path / "rm", reward_model())
    bert = saved(tmp_path / "bert", BertForMaskedLM(BertConfig(**SMALL, initializer_range=0.3)))
    with pytest.raises(VGFError, match=r"\(bert\) is not causal"):
        load_models(bert, rm)
    head = BertForSequenceClassification(BertConfig(**SMALL, num_labels=1))
    with pytest.raises(VGFError, match="weights of CausalLM"):
        load_models(saved(tmp_path / "head", head), rm)
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    with pytest.raises(VGFError, match="the base model is an encoder-decoder"):
        pair(t5, made.rm, made.tokenizer)
    bart = BartForSequenceClassification(
        BartConfig(
            vocab_size=50,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            num_labels=1,
        )
    )
    with pytest.raises(VGFError, match="the reward model is an encoder-decoder"):
        pair(made.sft, bart, made.tokenizer)


def labelled(**changes):
    return reward_model(
        num_labels=2, id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"POSITIVE": 1}, **changes
    )


@pytest.mark.parametrize(("label", "sign"), [("POSITIVE", 1), ("1", 1), ("NEGATIVE", -1)])
def test_a_named_label_gives_its_log_odds(tmp_path, made, settings, label, sign):
    own = change(settings, rm_label=label)
    rm = labelled()
    (record,) = align(pair(made.sft, rm, made.tokenizer, settings=own), ["w1"], own)
    row = record["samples"][0]
    prompt = make_tokenizer()("w1")["input_ids"]
    with torch.no_grad():
        no, yes = rm(input_ids=torch.tensor([prompt + row["tokens"]])).logits[0].tolist()
    assert row["reward"] == pytest.approx(sign * (yes - no))
    place = saved(tmp_path / "rm", rm)
    judge = load_judge(place, "cpu", rm_label=label)
    assert judge(["w1"], [row["response"]]) == pytest.approx([row["reward"]])


def test_labels_must_be_named_and_known(tmp_path, made):
    with pytest.raises(VGFError, match=r"2 outputs.*--rm-label \(NEGATIVE, POSITIVE\)"):
        pair(made.sft, labelled(), made.tokenizer)
    with pytest.raises(VGFError, match="no label 'GOOD'; it has NEGATIVE, POSITIVE"):
        load_reward_model(saved(tmp_path, labelled()), "cpu", label="GOOD")


def test_positions_of_roberta_and_xlnet():
    roberta = RobertaForSequenceClassification(
        RobertaConfig(**SMALL, max_position_embeddings=12, num_labels=1, pad_token_id=1)
    ).eval()
    assert position_limit(roberta) == 10
    reward = RewardModel(roberta, len(WORDS))
    assert reward.rewards([[3] * 10]).shape == (1,)
    with pytest.raises((IndexError, RuntimeError)):
        reward.rewards([[3] * 11])
    xlnet = XLNetForSequenceClassification(
        XLNetConfig(vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=32, num_labels=1)
    )
    assert position_limit(xlnet) is None
    assert position_limit(reward_model()) == 40


def test_rewards_of_half_precision_do_not_tie(made):
    half = reward_model(dtype=torch.bfloat16)
    rows = [[i, j] for i in range(3, 50) for j in range(3, 50)]
    found = RewardModel(half, len(WORDS)).rewards(rows)
    ids = torch.tensor(rows)
    with torch.no_grad():
        theirs = half(input_ids=ids).logits[:, 0]
        hidden = half.base_model(input_ids=ids).last_hidden_state[:, -1].float()
        wanted = (hidden @ half.score.weight.float().T)[:, 0]
    torch.testing.assert_close(found, wanted)
    assert len(set(theirs.tolist())) < len(rows) / 2
    assert len(set(found.tolist())) > 0.95 * len(rows)
    assert not half.score._forward_hooks


def test_layers_computed_again_give_the_same_gradient(settings):
    plain = pair(base_model(), reward_model(), make_tokenizer())
    own = change(settings, gradient_checkpointing=True)
    again = pair(base_model(), reward_model(), make_tokenizer(), settings=own)
    u = [plain.reward.table[[10, 11, 12]] + 0.1]
    calls = []
    layer = again.reward.model.gpt_neox.layers[0].attention
    layer.register_forward_hook(lambda *_: calls.append(0))
    wanted = plain.reward.gradients([[3, 4]], u, [[1]])
    found = again.reward.gradients([[3, 4]], u, [[1]])
    assert len(calls) == 2  # forward, and again for the gradient
    for x, y in zip(wanted, found, strict=True):
        torch.testing.assert_close(x, y)
    dropouts = [m for m in again.reward.model.modules() if isinstance(m, torch.nn.Dropout)]
    assert not any(module.training for module in dropouts)


# --- adapters -----------------------------------------------------------------------------------


def adapted(model, task, **changes):
    peft = pytest.importorskip("peft")
    torch.manual_seed(5)
    config = peft.LoraConfig(
        r=2, task_type=task, target_modules=["query_key_value"], init_lora_weights=False, **changes
    )
    return peft.get_peft_model(model, config).double().eval()


def test_peft_objects_are_the_models_they_adapt(settings):
    sft, rm = adapted(base_model(), "CAUSAL_LM"), adapted(reward_model(), "SEQ_CLS")
    found = align(pair(sft, rm, make_tokenizer()), PROMPTS, settings)
    plain = align(pair(base_model(), reward_model(), make_tokenizer()), PROMPTS, settings)
    merged = pair(sft.merge_and_unload(), rm.merge_and_unload(), make_tokenizer())
    wanted = align(merged, PROMPTS, settings)
    for one, two, other in zip(found, wanted, plain, strict=True):
        assert one["response"] == two["response"]
        assert one["reward"] == pytest.approx(two["reward"], rel=1e-6)
        assert one["reward"] != pytest.approx(other["reward"], rel=1e-6)


def test_adapters_are_loaded_from_their_folders(tmp_path, settings):
    base, tower = saved(tmp_path / "base", base_model()), saved(tmp_path / "tower", reward_model())
    for name, model, task, place in (
        ("sft", base_model(), "CAUSAL_LM", base),
        ("rm", reward_model(), "SEQ_CLS", tower),
    ):
        own = adapted(model, task)
        own.peft_config["default"].base_model_name_or_path = place
        own.save_pretrained(tmp_path / name)
    found = load_models(str(tmp_path / "sft"), str(tmp_path / "rm"))
    names = [name for name, _ in found.language.model.named_parameters()]
    assert any("lora" in name for name in names)
    assert align(found, ["w1"], settings)[0]["reward"] is not None
    # an adapter's own array that is not in its folder is random
    whole = load_file(tmp_path / "sft" / "adapter_model.safetensors")
    lost = next(name for name in whole if "lora_A" in name)
    kept = {name: x for name, x in whole.items() if name != lost}
    shutil.copytree(tmp_path / "sft", tmp_path / "part")
    save_file(kept, tmp_path / "part" / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(VGFError, match=r"lacks 1 weights of .*lora_A"):
        load_models(str(tmp_path / "part"), str(tmp_path / "rm"))
    # a head that is in neither folder is random
    headless = adapted(reward_model(), "SEQ_CLS")
    headless.peft_config["default"].base_model_name_or_path = base
    headless.save_pretrained(tmp_path / "no-head")
    file = tmp_path / "no-head" / "adapter_model.safetensors"
    kept = {name: x for name, x in load_file(file).items() if "score" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(VGFError, match=r"(lacks|cannot be loaded by peft: .*)score"):
        load_models(base, str(tmp_path / "no-head"))


def test_adapters_that_learn_a_prompt_are_refused(made):
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    prompted = peft.get_peft_model(base_model(), config)
    with pytest.raises(VGFError, match="learns a prompt"):
        pair(prompted, made.rm, made.tokenizer)


# --- how they are loaded ------------------------------------------------------------------------


def test_revisions_maps_and_quantisation_reach_transformers(monkeypatch):
    asked = []

    def load(kind, place, **options):
        asked.append((kind.__name__, place, options))
        raise VGFError("far enough")

    monkeypatch.setattr(models, "_load", load)
    monkeypatch.setattr(models, "need", lambda *_: None)
    wanted = AlignSettings(
        sft_revision="v1", rm_revision="v2", sft_device_map="auto", rm_quantisation="4bit"
    )
    with pytest.raises(VGFError, match="far enough"):
        load_models("org/base", "org/reward", wanted)
    assert asked[0][2]["revision"] == "v1"
    assert asked[0][2]["device_map"] == "auto"
    with pytest.raises(VGFError, match="far enough"):
        load_reward_model("org/reward", quantisation="4bit", revision="v2")
    assert asked[1][2]["revision"] == "v2"
    assert asked[1][2]["quantization_config"].load_in_4bit
    with pytest.raises(VGFError, match="far enough"):
        models.load_tokenizer("org/base", None, "v1")
    assert asked[2][2] == {"revision": "v1"}


def test_a_device_map_places_the_model(tmp_path, settings):
    pytest.importorskip("accelerate")
    own = change(settings, sft_device_map="cpu", rm_device_map="cpu")
    places = saved(tmp_path / "sft", base_model()), saved(tmp_path / "rm", reward_model())
    found = align(load_models(*places, own), ["w1"], own)
    assert found[0]["reward"] == pytest.approx(
        align(load_models(*places, settings), ["w1"], settings)[0]["reward"]
    )


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", POINTER, "is only a pointer to the file"),
        ("model.safetensors", 5000, "is damaged, or was cut off"),
        ("model.safetensors", b"\0" * 100, "is damaged, or was cut off"),
        ("pytorch_model.bin", b"PK\3\4" + bytes(100), "is damaged, or was cut off"),
        ("model.safetensors.index.json", POINTER, "is only a pointer to the file"),
        ("config.json", b"", "not JSON, or cut off"),
        ("generation_config.json", 20, "not JSON, or cut off"),  # transformers says nothing
        ("tokenizer.json", 300, "not JSON, or cut off"),
        ("tokenizer_config.json", b"[]", "holds a list"),
        ("adapter_config.json", POINTER, "is only a pointer to the file"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, content, message):
    place = saved(tmp_path / "sft", base_model())
    path = tmp_path / "sft" / file
    path.write_bytes(path.read_bytes()[:content] if isinstance(content, int) else content)
    with pytest.raises(VGFError, match=f"sft/{file}:? {message}"):
        load_models(place, place)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = base_model()
    model.gpt_neox.final_layer_norm.weight.data[0] = torch.nan
    with pytest.raises(VGFError, match="logits that are not finite: its weights are damaged"):
        pair(model, reward_model(), make_tokenizer())


def test_a_prompt_that_gives_nan_is_left_out(made, settings):
    found = pair(base_model(), made.rm, made.tokenizer)
    found.language.allowed[9] = False
    with torch.no_grad():
        found.language.model.get_input_embeddings().weight[9] = torch.nan
    first, second = align(found, ["w1", make_tokenizer().decode([9])], settings)
    assert "samples" in first
    assert "prompt 2: the base model gives NaN" in second["error"]


class Code:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("generation_config.json", {"eos_token_id": ["x"]}, r"eos_token_id is \['x"),
        ("config.json", {"hidden_size": 32}, "other shapes than its config.json says"),
        ("pytorch_model.bin", {"x": Code()}, "holds code, which is not run"),
    ],
)
def test_files_that_say_something_else_are_refused(tmp_path, folders, file, content, message):
    place = tmp_path / "sft"
    shutil.copytree(folders.sft, place)
    if file == "pytorch_model.bin":
        (place / "model.safetensors").unlink()
        torch.save(content, place / file)
    else:
        own = json.loads((place / file).read_text())
        (place / file).write_text(json.dumps(own | content))
    with pytest.raises(VGFError, match=message):
        load_models(str(place), str(folders.rm))
