"""Sampling, likelihood and decoding: against plain loops, and against what they must not do."""

import pytest
from needs import need

need("torch", "transformers")

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import WORDS, base_model, make_tokenizer, reward_model
from transformers import GenerationConfig

from vgf import spec
from vgf.text import AlignSettings, pair
from vgf.text.language import portions

PROMPTS = [[3, 4], [5], [6, 7, 8, 9]]


def keys(count):
    return [(0, 1, i) for i in range(count)]


def next_log_p(model, row):
    with torch.no_grad():
        return model(input_ids=torch.tensor([row])).logits[0, -1].log_softmax(-1)


def biased(end=0.0, **changes):
    """A base model whose next token is the end with other odds."""
    model = base_model(**changes)
    head = model.get_output_embeddings()
    plain = head.forward

    def forward(x):
        found = plain(x).clone()
        found[..., 1] += end
        return found

    head.forward = forward
    return pair(model, reward_model(), make_tokenizer()).language


@given(st.lists(st.integers(1, 30)), st.integers(1, 60))
def test_portions_are_all_rows_in_order_and_within_the_bound(lengths, most):
    found = list(portions(lengths, most))
    assert [x for part in found for x in lengths[part]] == lengths
    for part in found:
        rows = lengths[part]
        assert rows
        assert len(rows) == 1 or len(rows) * max(rows) <= most


def test_samples_have_the_models_own_frequencies(models, made):
    settings = AlignSettings(max_new_tokens=1)
    n = 3000
    rows = models.language.sample([PROMPTS[0]] * n, keys(n), settings).rows
    p = next_log_p(made.sft, PROMPTS[0]).exp().numpy().copy()
    p[:3] = 0  # special tokens, the end among them before its time
    p /= p.sum()
    found = np.bincount([row[0] for row in rows], minlength=len(WORDS)) / n
    assert not found[:3].any()
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-3).all()


def test_rows_do_not_depend_on_what_is_sampled_beside_them(models):
    settings = AlignSettings(max_new_tokens=8)
    together = models.language.sample(PROMPTS, keys(3), settings).rows
    for prompt, key, row in zip(PROMPTS, keys(3), together, strict=True):
        assert models.language.sample([prompt], [key], settings).rows == [row]
    assert together != models.language.sample(PROMPTS, [(1, *k) for k in keys(3)], settings).rows


@pytest.mark.parametrize("least", [1, 3])
def test_responses_end_with_the_end(least):
    language = biased(end=6.0)
    settings = AlignSettings(max_new_tokens=8, min_new_tokens=least)
    rows = language.sample(PROMPTS * 20, keys(60), settings).rows
    assert min(map(len, rows)) == least + 1
    for row in rows:
        assert not {0, 2} & set(row)
        assert row.index(1) == len(row) - 1 if 1 in row else len(row) == 8
        assert language.movable(row) == [token for token in row if token != 1]


def test_truncated_sampling(models, made):
    greedy = models.language.sample(PROMPTS, keys(3), AlignSettings(max_new_tokens=5, top_k=1)).rows
    for prompt, row in zip(PROMPTS, greedy, strict=True):
        for t, token in enumerate(row):
            log_p = next_log_p(made.sft, prompt + row[:t])
            log_p[: 1 if t else 3] = -torch.inf
            log_p[[0, 2]] = -torch.inf
            assert token == int(log_p.argmax())
    settings = AlignSettings(max_new_tokens=1, top_p=0.3, sampling_temperature=0.5)
    p = next_log_p(made.sft, PROMPTS[0])
    p[:3] = -torch.inf
    p = (p / 0.5).softmax(-1)
    order = p.argsort(descending=True)
    kept = order[: int((p[order].cumsum(0) < 0.3).sum()) + 1].tolist()
    rows = models.language.sample([PROMPTS[0]] * 50, keys(50), settings).rows
    assert {row[0] for row in rows} <= set(kept)


def test_likelihoods_of_a_padded_batch_are_sums_over_tokens(models, made):
    responses = [[10, 11, 12, 1], [13], [14, 15]]
    found = models.language.log_likelihoods(PROMPTS, responses)
    for prompt, response, value in zip(PROMPTS, responses, found, strict=True):
        by_hand = sum(
            float(next_log_p(made.sft, prompt + response[:t])[token])
            for t, token in enumerate(response)
        )
        assert value == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(("weight", "top"), [(0.05, 10), (0.3, 3), (0.0, 50)])
def test_decoding_is_the_specifications_from_left_to_right(models, made, weight, top):
    originals = [[10, 11, 12, 13], [14], [15, 16]]
    table = models.reward.table
    torch.manual_seed(0)
    u = torch.zeros(3, 4, table.shape[1], dtype=table.dtype)
    for i, row in enumerate(originals):
        u[i, : len(row)] = table[torch.tensor(row)]
    u += 1.5 * models.reward.scale * torch.randn_like(u) / 4
    usable = models.language.allowed
    found = models.language.decode(
        models.backend, PROMPTS, u, originals, table, usable, weight, top
    ).rows
    allowed = np.arange(len(WORDS)) > 2
    changed = 0
    for i, row in enumerate(originals):
        decoded = []
        for t, token in enumerate(row):
            log_p = next_log_p(made.sft, PROMPTS[i] + decoded).numpy()
            scores = spec.decoding_scores(
                u[i, t : t + 1].numpy(),
                log_p[None],
                table.numpy(),
                np.array([token]),
                allowed,
                weight,
                top,
            )
            decoded.append(int(scores.argmax()))
        assert found[i] == decoded
        changed += sum(x != y for x, y in zip(row, decoded, strict=True))
    assert changed


def test_a_models_own_defaults_of_generation_do_not_join_in(models, made):
    settings = AlignSettings(max_new_tokens=8)
    before = models.language.sample(PROMPTS, keys(3), settings).rows
    own = made.sft.generation_config
    penal = GenerationConfig(repetition_penalty=50.0, no_repeat_ngram_size=1, suppress_tokens=[5])
    made.sft.generation_config = penal
    try:
        assert models.language.sample(PROMPTS, keys(3), settings).rows == before
        assert made.sft.generation_config is penal
    finally:
        made.sft.generation_config = own
