"""Instruction-tuned models: their templates and ends, and what the reward model reads of them."""

import pytest
from needs import need

need("torch", "transformers")

import dataclasses
import json

import torch
from chat_models import FAMILIES, chat_models, chat_tokenizer, llama
from tiny_models import make_tokenizer
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as tokenizer_models
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast

from vgf.support.errors import VGFError
from vgf.text import AlignSettings, align, load_judge, pair
from vgf.text.prompts import as_prompt
from vgf.text.tokens import added_text, encode_plain, stop_ids

TURNS = [{"role": "user", "content": "tell me what you think of it"}]
LONGER = [
    {"role": "user", "content": "the film was good"},
    {"role": "assistant", "content": "Yes!"},
    {"role": "user", "content": "and the cast"},
]
change = dataclasses.replace


@pytest.fixture
def settings():
    return AlignSettings(
        particles=2, steps=(0, 2), max_new_tokens=5, decoding_weight=0.05, step_size=0.4
    )


@pytest.fixture(params=sorted(FAMILIES))
def family(request):
    return request.param


def ended_early(base, token):
    """Make a token much likelier."""
    head = base.get_output_embeddings()
    plain = head.forward

    def forward(x):
        found = plain(x).clone()
        found[..., token] += 12.0
        return found

    head.forward = forward


def test_every_end_of_the_family_ends_a_response(family, settings):
    base, reward, tokenizer = chat_models(family)
    turn = tokenizer.convert_tokens_to_ids(FAMILIES[family][3])
    ended_early(base, turn)
    models = pair(base, reward, tokenizer)
    (record,) = align(models, [TURNS], settings)
    special = set(tokenizer.all_special_ids)
    for group in (record["samples"], record["budgets"][-1]["candidates"]):
        for row in group:
            assert row["tokens"][-1] == turn
            assert row["end"] == FAMILIES[family][3]
            assert not special & set(row["tokens"][:-1])
            assert not any(token in row["response"] for token in FAMILIES[family][1])


def test_specials_named_by_no_attribute_are_banned(family):
    base, reward, tokenizer = chat_models(family)
    models = pair(base, reward, tokenizer)
    added = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
    assert not models.language.allowed[added].any()
    assert len(added) > len(tokenizer.all_special_ids)
    assert models.language.ends == stop_ids(base, tokenizer)
    assert set(models.language.ends) == set(base.generation_config.eos_token_id)


def test_conversations_go_through_the_template_and_begin_once(family):
    base, reward, tokenizer = chat_models(family)
    models = pair(base, reward, tokenizer)
    for turns in (TURNS, LONGER):
        query = models.query(as_prompt({"prompt": turns}, ""), "a prompt", AlignSettings())
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        wanted = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert query.tokens == wanted
        if tokenizer.bos_token_id is not None:
            assert query.tokens.count(tokenizer.bos_token_id) == 1
            # one that was rendered before does not begin twice either
            assert encode_plain(tokenizer, text) == wanted
            assert encode_plain(tokenizer, "good")[0] == tokenizer.bos_token_id


def test_the_reward_is_that_of_the_whole_conversation_in_the_reward_models_template(
    family, settings
):
    base, reward, tokenizer = chat_models(family)
    models = pair(base, reward, tokenizer)
    (record,) = align(models, [LONGER], settings)
    for row in record["samples"]:
        said = [*LONGER, {"role": "assistant", "content": "Vgf"}]
        text = tokenizer.apply_chat_template(said, tokenize=False)
        before, after = (  # a space before the response belongs to its first token
            tokenizer(part.rstrip(" "), add_special_tokens=False)["input_ids"]
            for part in text.split("Vgf")
        )
        own = models.language.movable(row["tokens"])
        ids = torch.tensor([before + own + after])
        wanted = reward(input_ids=ids).logits[0, 0].detach()
        assert row["reward"] == pytest.approx(float(wanted), rel=1e-9)


def test_a_response_reads_alike_by_its_tokens_and_by_its_text(family):
    base, reward, tokenizer = chat_models(family)
    models = pair(base, reward, tokenizer)
    prompt = models.query(as_prompt({"prompt": LONGER}, ""), "a prompt", AlignSettings()).tokens
    said = [*LONGER, {"role": "assistant", "content": "it was good"}]
    whole = tokenizer.apply_chat_template(said, tokenize=False)
    tokens = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert tokens[: len(prompt)] == prompt
    end = next(i for i in range(len(prompt), len(tokens)) if tokens[i] in models.language.ends)
    own = tokens[len(prompt) : end]
    assert models.text(prompt, own).strip() == "it was good"
    assert models.reader.by_tokens(LONGER, prompt, [(own, [])])[0].row == tokens
    assert models.reader.by_text(LONGER, models.text(prompt, own)).row == tokens


def test_another_template_of_the_reward_model_is_used(settings):
    base, _, tokenizer = chat_models("qwen")
    theirs = chat_tokenizer("qwen")
    theirs.chat_template = theirs.chat_template.replace("assistant", "bot").replace("\n", " ")
    reward = llama(LlamaForSequenceClassification, theirs, 1, num_labels=1)
    models = pair(base, reward, tokenizer, theirs)
    assert models.bridge is None
    (record,) = align(models, [TURNS], settings)
    row = record["samples"][0]
    own = models.language.movable(row["tokens"])
    (read,) = models.reader.by_tokens(TURNS, record["prompt_tokens"], [(own, [])])
    text = theirs.decode(read.row)
    assert text.startswith("<|im_start|>user tell me what")
    assert text.endswith("<|im_end|> ")
    assert row["reward"] == pytest.approx(float(models.reward.rewards([read.row])[0]))


def test_system_prompts_and_templates_that_refuse_them(settings):
    base, reward, tokenizer = chat_models("qwen")
    models = pair(base, reward, tokenizer)
    own = change(settings, system_prompt="be good")
    (record,) = align(models, [{"messages": TURNS}], own)
    assert tokenizer.decode(record["prompt_tokens"]).startswith("<|im_start|>system\nbe good<")
    assert record["prompt"] == TURNS
    assert record["given"][0] == {"role": "system", "content": "be good"}
    base, reward, tokenizer = chat_models("gemma")
    models = pair(base, reward, tokenizer)
    found = align(models, [[{"role": "system", "content": "be good"}, *TURNS], TURNS], settings)
    assert "prompt 1" in found[0]["error"]
    assert "System role not supported" in found[0]["error"]
    assert "samples" in found[1]


def test_plain_prompts_of_a_chat_model_are_said_and_can_be_turns(settings, capsys):
    base, reward, tokenizer = chat_models("qwen")
    models = pair(base, reward, tokenizer)
    text = TURNS[0]["content"]
    plain = align(models, [text], settings)[0]
    assert "the base model has a chat template, and 1 prompts are plain" in capsys.readouterr().err
    chat, same = align(models, [text, TURNS], change(settings, as_chat=True))
    assert "chat template" not in capsys.readouterr().err
    assert plain["prompt_tokens"] == tokenizer(text)["input_ids"]
    assert chat["prompt_tokens"] == same["prompt_tokens"] != plain["prompt_tokens"]


def test_a_conversation_without_a_template(models, settings):
    found = align(models, ["w1", TURNS], settings)
    assert "prompt 2, for the base model: it has no chat template" in found[1]["error"]


def test_messages_that_end_with_the_assistant_are_a_prompt_and_its_reference():
    prompt = as_prompt({"messages": LONGER[:2], "id": 7}, "line 1")
    assert prompt.content == LONGER[:1]
    assert prompt.fields == {"id": 7, "reference": "Yes!"}
    for wrong, message in (
        ({"prompt": LONGER[:2]}, "the last turn of .* is the assistant's"),
        ({"messages": []}, "it is empty"),
        ({"messages": [{"role": "user"}]}, "turn 1 is not one"),
        ({"messages": TURNS, "prompt": "a"}, "both"),
        ({"prompt": {"role": "user"}}, "no text"),
    ):
        with pytest.raises(VGFError, match=message):
            as_prompt(wrong, "line 1")


def test_content_in_parts_is_its_text(family, settings):
    models = pair(*chat_models(family))
    parts = [{"type": "text", "text": "the film "}, "was good"]
    asked = [
        as_prompt({"messages": [{"role": "user", "content": said}]}, "line 1")
        for said in (parts, "the film was good")
    ]
    first, second = (models.query(one, "prompt 1", settings).tokens for one in asked)
    assert first == second
    answered = [{"role": "user", "content": "a"}, {"role": "assistant", "content": parts}]
    found = as_prompt({"messages": answered}, "line 1")
    assert found.fields["reference"] == "the film was good"
    image = {"type": "image", "url": "a.png"}
    with pytest.raises(VGFError, match="a text or parts of text; turn 1 is not one"):
        as_prompt({"messages": [{"role": "user", "content": [image]}]}, "line 1")


def test_a_system_prompt_says_nothing_for_the_user(settings):
    models = pair(*chat_models("qwen"))
    own = change(settings, system_prompt="be brief")
    with pytest.raises(VGFError, match="prompt 1 is empty"):
        models.query(as_prompt([{"role": "user", "content": ""}], "line 1"), "prompt 1", own)


# --- stop strings and texts -----------------------------------------------------------------------


@pytest.mark.parametrize(("start", "size"), [(3, 1), (2, 3), (5, 4)])
def test_stop_strings_end_responses_before_them(settings, start, size):
    base, reward, tokenizer = chat_models("qwen")
    models = pair(base, reward, tokenizer)
    for i in range(len(tokenizer)):  # half of a character has no text to cut at
        models.language.allowed[i] &= tokenizer.decode([i]).isascii()
    own = change(settings, particles=12, max_new_tokens=12)
    free = align(models, [TURNS], own)[0]["samples"]
    stop = max((row["response"] for row in free), key=len)[start : start + size]
    cut = align(models, [TURNS], change(own, stop_strings=(stop,)))[0]
    stopped = 0
    for before, after in zip(free, cut["samples"], strict=True):
        assert after["response"] == before["response"].split(stop)[0]
        assert models.text(cut["prompt_tokens"], after["tokens"]) == after["response"]
        if stop in before["response"]:
            stopped += 1
            prompt = cut["prompt_tokens"]
            (log_p,) = models.language.log_likelihoods([prompt], [after["tokens"]])
            assert after["log_likelihood"] == pytest.approx(log_p, rel=1e-5, abs=1e-6)
    assert stopped
    for row in cut["budgets"][-1]["candidates"]:
        assert stop not in row["response"]


def test_a_special_token_as_stop_string_ends_a_response(settings):
    base, reward, tokenizer = chat_models("qwen")
    token = "<|im_start|>"
    ended_early(base, tokenizer.convert_tokens_to_ids(token))
    own = change(settings, particles=4, max_new_tokens=12, stop_strings=(token,))
    found = align(pair(base, reward, tokenizer, None, own), [TURNS], own)[0]
    assert any(row["end"] == token for row in found["samples"])
    assert all(token not in row["response"] for row in found["samples"])


def sentencepiece():
    """A tokenizer that writes a space as ▁ and drops the first one."""
    words = ["<pad>", "</s>", "<unk>", "▁the", "▁film", "▁was", "good", "▁good", "s"]
    tokenizer = Tokenizer(
        tokenizer_models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def wordpiece():
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "the", "film", "##s", "was", "a"]
    tokenizer = Tokenizer(
        tokenizer_models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]"
    )


def test_a_responses_text_is_what_it_adds_to_the_prompt():
    tokenizer = sentencepiece()
    assert tokenizer.decode([7, 8]) == "goods"
    assert added_text(tokenizer, [3, 4, 5], [7, 8, 1]) == " goods"
    assert added_text(tokenizer, [3, 4, 5], [6]) == "good"
    tokenizer = wordpiece()
    assert added_text(tokenizer, [1, 4, 5], [6, 7]) == "s was"
    assert added_text(make_tokenizer(), [3], [4, 5]) == " w1 w2"
    bytes_of = chat_tokenizer("qwen")
    whole = bytes_of("é!", add_special_tokens=False)["input_ids"]
    assert added_text(bytes_of, whole[:1], whole[1:]) == "é!"


def test_nothing_stands_between_prompt_and_response():
    tokenizer = wordpiece()
    assert tokenizer("the film")["input_ids"] == [1, 4, 5, 2]
    assert encode_plain(tokenizer, "the film") == [1, 4, 5]
    reader = load_reader(tokenizer)
    assert reader.by_text("the film", "s was").row == tokenizer("the films was")["input_ids"]
    assert reader.by_tokens("the film", [1, 4, 5], [([6, 7], [])])[0].row == [1, 4, 5, 6, 7, 2]


def load_reader(tokenizer):
    from vgf.text.reading import Reader

    return Reader(tokenizer, tokenizer)


# --- where the reward is read ---------------------------------------------------------------------


@pytest.mark.parametrize("pad_is_end", [True, False])
def test_the_reward_is_read_where_transformers_reads_it(settings, pad_is_end):
    base, _, tokenizer = chat_models("qwen")
    end = tokenizer.eos_token_id
    pad = end if pad_is_end else tokenizer.pad_token_id
    reward = llama(LlamaForSequenceClassification, tokenizer, 1, num_labels=1, pad_token_id=pad)
    ended_early(base, end)
    found = {}
    for where in ("huggingface", "last"):
        own = change(settings, reward_token=where)
        (record,) = align(pair(base, reward, tokenizer, settings=own), ["the film"], own)
        found[where] = record["samples"][0]
    row = found["huggingface"]["tokens"]
    assert row[-1] == end
    ids = torch.tensor([tokenizer("the film")["input_ids"] + row])
    (wanted,) = reward(input_ids=ids).logits[:, 0].tolist()
    assert found["huggingface"]["reward"] == pytest.approx(wanted)
    hidden = reward.model(input_ids=ids).last_hidden_state[:, -1]
    assert found["last"]["reward"] == pytest.approx(reward.score(hidden)[0, 0].item())
    same = found["last"]["reward"] == pytest.approx(found["huggingface"]["reward"])
    assert same != pad_is_end


def test_one_judge_and_one_reward_agree(family, settings, tmp_path):
    from vgf.text import judge

    base, reward, tokenizer = chat_models(family)
    reward.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    models = pair(base, reward, tokenizer)
    out = tmp_path / "out.jsonl"
    records = align(models, [TURNS, LONGER, "the film "], settings, out)
    verdicts = judge(out, {"rm": load_judge(str(tmp_path / "rm"), "cpu")})
    for verdict in verdicts:
        steps = verdict.method.removeprefix("L=")
        rewards = [
            record["best_of_n"]["reward"]
            if verdict.method == "best_of_n"
            else next(b for b in record["budgets"] if str(b["steps"]) == steps)["reward"]
            for record in records
        ]
        assert verdict.mean == pytest.approx(sum(rewards) / 3, rel=1e-9)
    assert json.loads(out.read_text().splitlines()[0])["prompt"] == TURNS
