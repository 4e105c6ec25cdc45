"""A reward model with another tokenizer: the flow in its own embeddings, or selection alone."""

import pytest
from needs import need

need("torch", "transformers")

import dataclasses

import numpy as np
import torch
from test_chat import sentencepiece, wordpiece
from tiny_models import PROMPTS, WORDS, base_model, make_tokenizer, reward_model
from transformers import BertConfig, BertForSequenceClassification

from vgf.support.errors import VGFError
from vgf.text import AlignSettings, align, flow, judge, load_judge, pair
from vgf.text.reading import alignment
from vgf.text.tokens import character_spans, differences

change = dataclasses.replace
OTHER = [*WORDS[:3], *reversed(WORDS[3:]), "xx"]


@pytest.fixture(scope="module")
def pieces():
    """The words of the base model, cut in two where they have two digits, lower case."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{i}" for i in range(10))]
    words += [f"##{i}" for i in range(10)]
    found = Tokenizer(WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    found.normalizer = normalizers.Lowercase()
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found.decoder = decoders.WordPiece()
    found.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=found, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]"
    )


def bert(tokenizer, **changes):
    torch.manual_seed(3)
    config = BertConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "num_labels": 1,
            "initializer_range": 0.5,
            "max_position_embeddings": 64,
            **changes,
        }
    )
    return BertForSequenceClassification(config).double().eval()


@pytest.fixture(scope="module")
def bridged(pieces):
    return pair(base_model(), bert(pieces), make_tokenizer(), pieces)


def test_the_reward_is_that_of_the_text_in_its_own_tokens(bridged, pieces, settings):
    assert bridged.bridge == "spans"
    for record in align(bridged, PROMPTS, settings):
        for row in (*record["samples"], *record["budgets"][-1]["candidates"]):
            ids = torch.tensor([pieces(record["prompt"] + row["response"])["input_ids"]])
            wanted = float(bridged.reward.model(input_ids=ids).logits[0, 0].detach())
            assert row["reward"] == pytest.approx(wanted, rel=1e-9)


def test_unmoved_tokens_are_themselves_and_moves_are_shared_by_characters(bridged, settings):
    (of,) = flow.sample(bridged, [(0, bridged.encode("w1", "", 6))], settings)
    u = flow.embed(bridged, of)
    for row, tokens in zip(flow.targets(bridged, of, u), of.movable, strict=True):
        torch.testing.assert_close(row, bridged.table[tokens])
    read = flow.readings(bridged, of)
    moved = u.clone()
    moved[0, 0] += 1.0  # the first piece of the first word
    apart = flow.targets(bridged, of, moved)[0] - bridged.table[of.movable[0]]
    word = make_tokenizer().decode(of.movable[0][:1])
    assert len(read[0].moving) > len(of.movable[0]) or len(word) == 2
    share = 1.0 if len(word) == 2 else 2 / 3  # "w1" of "w17"
    torch.testing.assert_close(apart[0], torch.full_like(apart[0], share))
    assert not apart[1:].any()


def test_the_table_is_the_mean_of_a_tokens_pieces(bridged, pieces):
    tokenizer = make_tokenizer()
    table = bridged.reward.model.get_input_embeddings().weight.detach()
    for word in ("w3", "w17"):
        ids = pieces(word, add_special_tokens=False)["input_ids"]
        row = bridged.table[tokenizer.convert_tokens_to_ids(word)]
        torch.testing.assert_close(row, table[ids].mean(0))


def test_the_flow_climbs_across_the_bridge_and_its_controls_do_not(bridged, settings):
    wanted = change(settings, particles=16, step_size=1.0, steps=(0, 5), max_new_tokens=8)
    wanted = change(wanted, decoding_weight=0.0, decoding_top=len(WORDS))

    def gain(direction):
        records = align(bridged, PROMPTS, change(wanted, direction=direction))
        return sum(
            after["reward"] - before["reward"]
            for record in records
            for before, after in zip(*(b["candidates"] for b in record["budgets"]), strict=True)
        )

    along, astray, against = map(gain, ("reward", "random", "negative"))
    assert along > 0 > against
    assert along > astray


def test_selection_picks_among_the_samples_and_moves_nothing(pieces, settings):
    own = change(settings, bridge="selection")
    models = pair(base_model(), bert(pieces), make_tokenizer(), pieces, own)
    with pytest.raises(VGFError, match="give --steps 0"):
        align(models, PROMPTS, own)
    for record in align(models, PROMPTS, change(own, steps=(0,), decoding_weight=None)):
        (budget,) = record["budgets"]
        assert [row["tokens"] for row in budget["candidates"]] == [
            row["tokens"] for row in record["samples"]
        ]
        assert budget["chosen"] == record["best_of_n"]["chosen"]
        assert all((row["changed"], row["moved"]) == (0, 0) for row in budget["candidates"])


def test_a_permuted_vocabulary_is_the_same_flow(made, settings):
    """With one piece for each token the bridge is exact: only the numbers of the tokens differ.

    Responses do not end by themselves: the end is a token for one vocabulary, and no text.
    """
    settings = change(settings, min_new_tokens=settings.max_new_tokens)
    there = {word: i for i, word in enumerate(OTHER)}
    other = make_tokenizer(OTHER)
    theirs = reward_model(vocab_size=len(OTHER))
    with torch.no_grad():
        table = theirs.get_input_embeddings().weight
        mine = reward_model()
        theirs.load_state_dict({**mine.state_dict(), "gpt_neox.embed_in.weight": table})
        for i, word in enumerate(WORDS):
            table[there[word]] = mine.get_input_embeddings().weight[i]
    same = align(pair(base_model(), mine, make_tokenizer()), PROMPTS, settings)
    models = pair(base_model(), theirs, make_tokenizer(), other)
    assert models.bridge == "spans"
    for record, wanted in zip(align(models, PROMPTS, settings), same, strict=True):
        for one, own in zip(record["samples"], wanted["samples"], strict=True):
            assert one["reward"] == pytest.approx(own["reward"])


def test_spans_by_hand():
    tokenizer = sentencepiece()
    assert character_spans(tokenizer, [3, 4], [5, 7, 8]) == [(0, 4), (4, 9), (9, 10)]
    shares = alignment(tokenizer, [3, 4], [5, 7, 8], [(1, 4), (5, 10), (10, 10)])
    np.testing.assert_allclose(shares, [[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    shares = alignment(tokenizer, [3, 4], [5, 7], [(0, 2), (2, 6), (6, 9)])
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0], [0, 0.4, 0.6]])


def test_what_no_bridge_joins_is_refused(settings):
    strange = wordpiece()
    with pytest.raises(VGFError, match=r"knows \d+ % of the base model's tokens.*selection"):
        pair(base_model(), bert(strange), make_tokenizer(), strange)
    own = change(settings, bridge="selection", steps=(0,))
    models = pair(base_model(), bert(strange), make_tokenizer(), strange, own)
    assert align(models, ["w1"], own)[0]["reward"] is not None
    slow = type("Slow", (), {"is_fast": False, "get_vocab": lambda self: {"a": 0}})()
    slow.all_special_ids, slow.added_tokens_decoder, slow.chat_template = [], {}, None
    slow.__class__.__len__ = lambda self: 1
    with pytest.raises(VGFError, match="does not say where its tokens stand"):
        pair(base_model(), reward_model(), make_tokenizer(), slow)


def test_vocabularies_that_differ_in_special_and_added_tokens_are_one(made, settings):
    other = make_tokenizer()
    other.add_special_tokens({"pad_token": "<nothing>"})
    other.add_tokens(["more"])
    assert differences(made.tokenizer, other) == []
    rm = reward_model(vocab_size=len(other))
    models = pair(made.sft, rm, made.tokenizer, other)
    assert models.bridge is None
    same = align(pair(made.sft, rm, made.tokenizer), PROMPTS, settings)
    found = align(models, PROMPTS, settings)
    assert [row["response"] for row in found] == [row["response"] for row in same]


def test_one_judge_and_one_reward_agree_across_the_bridge(pieces, settings, tmp_path):
    models = pair(base_model(), bert(pieces), make_tokenizer(), pieces)
    models.reward.model.save_pretrained(tmp_path / "rm")
    pieces.save_pretrained(tmp_path / "rm")
    out = tmp_path / "out.jsonl"
    records = align(models, PROMPTS, settings, out)
    best = judge(out, {"rm": load_judge(str(tmp_path / "rm"), "cpu")})[0]
    assert best.mean == pytest.approx(sum(r["best_of_n"]["reward"] for r in records) / 3)


def test_a_response_too_long_for_the_reward_model_is_that_prompts(pieces, settings):
    models = pair(base_model(), bert(pieces, max_position_embeddings=12), make_tokenizer(), pieces)
    with pytest.raises(VGFError, match=r"prompt 1: with a response .* --rm model takes 12"):
        align(models, ["w1"], settings)


def test_defaults_bridge_by_spans():
    assert AlignSettings().bridge == "spans"
