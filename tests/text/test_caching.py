"""The cache of prompts: it changes nothing but the number of tokens that go through the models."""

import pytest
from needs import need

need("torch", "transformers")

import dataclasses

import torch
import transformers
from test_reward import ENDS, MIDDLES, PROMPTS, embeddings
from tiny_models import WORDS, base_model, make_tokenizer, reward_model

from vgf.text import align, pair
from vgf.text.caching import KEPT, PromptCache
from vgf.text.reward import RewardModel, checkpoint_layers

change = dataclasses.replace
SMALL = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 32,
    "num_labels": 1,
    "pad_token_id": 0,
    "initializer_range": 0.5,
}
# a family, and what is its own
SHARING = {
    "Llama": {},
    "Mistral": {"sliding_window": 3},
    "Qwen2": {},
    "Gemma": {},
    "Gemma2": {"sliding_window": 3, "query_pre_attn_scalar": 8},
    "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40},
    "OPT": {"word_embed_proj_dim": 16, "ffn_dim": 32, "max_position_embeddings": 40},
    "GPTNeoX": {},
}
SINGLE = ("Gemma2",)  # parts of it are float32 in any model
ALONE = {"Bloom": {"n_layer": 2, "n_head": 2}}


def of_family(name, **changes):
    torch.manual_seed(5)
    config = getattr(transformers, f"{name}Config")(**SMALL | changes)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    kind = torch.float32 if name in SINGLE else torch.float64
    return RewardModel(model.to(kind).eval(), len(WORDS))


def without(reward):
    """The same reward model, which reads every prompt anew."""
    found = dataclasses.replace(reward)
    found.__dict__["shares_prompts"] = False
    return found


def passed(model):
    """The shapes of what goes through a model from now on."""
    shapes = []

    def note(module, args, kwargs):
        own = kwargs.get("inputs_embeds")
        own = own if own is not None else kwargs.get("input_ids", *args[:1])
        shapes.append(tuple(own.shape[:2]))

    model.register_forward_pre_hook(note, with_kwargs=True)
    return shapes


@pytest.mark.parametrize("family", [*SHARING, *ALONE])
def test_rewards_and_gradients_are_those_without_the_cache(family):
    reward = of_family(family, **(SHARING | ALONE)[family])
    prompts, u, ends = PROMPTS * 2, embeddings(reward) * 2, ENDS * 2
    shapes = passed(reward.model.base_model)
    found = reward.gradients(prompts, u, ends)
    assert reward.shares_prompts == (family in SHARING)
    shapes.clear()
    again = reward.gradients(prompts, u, ends)  # what the first call kept was not changed by it
    assert torch.equal(again[0], found[0])
    longest = max(len(a + b) for a, b in zip(MIDDLES, ENDS, strict=True))
    assert [width <= longest for _, width in shapes] == [family in SHARING]
    wanted = without(reward).gradients(prompts, u, ends)
    close = {"rtol": 1e-3, "atol": 1e-5} if family in SINGLE else {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(found, wanted, **close)
    assert min(float(g.abs().max()) for g in wanted[1]) > 1e-4
    rows = [a + b + c for a, b, c in zip(PROMPTS, MIDDLES, ENDS, strict=True)]
    torch.testing.assert_close(reward.rewards(rows, PROMPTS), without(reward).rewards(rows))


def test_padding_has_a_position_too(made):
    """A long prompt with a short response, and the other way round, at the model's limit."""
    reward = of_family("GPT2", **SHARING["GPT2"])
    prompts = [[3] * 38, [4, 5]] * 2
    rows = [[3] * 38 + [6], [4, 5] + [7] * 38] * 2
    found = reward.rewards(rows, prompts)
    assert reward.shares_prompts
    torch.testing.assert_close(found, without(reward).rewards(rows))


def test_who_does_not_share(models):
    again = RewardModel(reward_model(), len(WORDS))
    checkpoint_layers(again.model)
    assert not again.shares_prompts
    short = dataclasses.replace(models.reward)
    prompts, rows = [[3, 4]] * 2, [[3, 4], [3, 4, 5]]  # one is read within its prompt
    wanted = without(short).rewards(rows)
    torch.testing.assert_close(short.rewards(rows, prompts), wanted)


@pytest.mark.parametrize("mistake", ["place", "mask", "prompt"])
def test_a_model_that_the_cache_does_not_suit_reads_its_prompts(mistake, monkeypatch):
    """Its positions, its mask or its prompt go wrong: it is asked, and found out."""
    reward = RewardModel(reward_model(), len(WORDS))
    plain, body = PromptCache.of, reward.model.base_model
    if mistake == "place":
        forward = body.forward

        def shifted(*args, position_ids=None, **options):
            moved = None if position_ids is None else position_ids - position_ids[:, :1]
            return forward(*args, position_ids=moved, **options)

        monkeypatch.setattr(body, "forward", shifted)
        reward.__dict__["prefixes"] = PromptCache(body)
        reward.prefixes.name = "past_key_values"
    else:

        def wrong(self, prompts, pad, device):
            if mistake == "prompt":
                return plain(self, [row[::-1] for row in prompts], pad, device)
            cache, mask = plain(self, prompts, pad, device)
            return cache, torch.ones_like(mask)

        monkeypatch.setattr(PromptCache, "of", wrong)
    u = embeddings(reward)
    found = reward.gradients(PROMPTS, u, ENDS)
    assert not reward.shares_prompts
    torch.testing.assert_close(found, without(reward).gradients(PROMPTS, u, ENDS))


def test_a_few_prompts_are_kept(models):
    cache = PromptCache(models.language.model)
    shapes = passed(models.language.model)
    device = models.language.device
    for i in range(KEPT + 1):
        cache.of([[3 + i, 4]] * 3, 0, device)
    assert len(shapes) == KEPT + 1
    cache.of([[4, 4]] * 2, 0, device)
    assert len(shapes) == KEPT + 1
    cache.of([[3, 4]] * 2, 0, device)
    assert len(shapes) == KEPT + 2


def test_the_tokens_that_go_through_the_models(settings):
    """Of one prompt: read once by each; a pass for each token, and again to decode all budgets; a
    step is one pass of the responses, and what the first step says of them is not asked again.
    """
    models = pair(base_model(), reward_model(), make_tokenizer())
    own = change(settings, particles=4, steps=(0, 1, 3), min_new_tokens=6)
    align(models, ["w9 w9 w9"], own)  # asks whether the cache suits the reward model
    base, reward = passed(models.language.model), passed(models.reward.model.base_model)
    align(models, ["w1 w2 w3 w4 w5"], own)
    assert base == [(1, 4)] + [(4, 1)] * 6 + [(12, 1)] * 6
    assert reward == [(1, 5)] + [(4, 6)] * 3 + [(12, 6)]


def test_aligned_with_the_cache_is_aligned_without_it(made, settings):
    prompts = ["w1 w2 w3", "w4", "w5 w6"]
    found = align(pair(made.sft, made.rm, made.tokenizer), prompts, settings)
    models = pair(made.sft, made.rm, made.tokenizer)
    models.reward.__dict__["shares_prompts"] = False
    models.language.prefixes.name = None
    for own, wanted in zip(found, align(models, prompts, settings), strict=True):
        for with_cache, plain in zip(own["budgets"], wanted["budgets"], strict=True):
            for a, b in zip(with_cache["candidates"], plain["candidates"], strict=True):
                assert a["tokens"] == b["tokens"]
                for name in ("reward", "log_likelihood", "moved"):
                    assert a[name] == pytest.approx(b[name], rel=1e-9)
