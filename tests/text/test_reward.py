"""The reward as a function of its input embeddings: chain rule, padding, last token."""

import pytest
from needs import need

need("torch", "transformers")

import torch
from tiny_models import WORDS, reward_model
from transformers import BertConfig, BertForSequenceClassification

from vgf.support.errors import VGFError
from vgf.text.reward import RewardModel

PROMPTS = [[3, 4], [5], [6, 7, 8, 9], [3, 9, 4]]
MIDDLES = [[10, 11, 12], [13, 14, 15, 16, 17], [18], [19, 20]]
ENDS = [[1], [], [1], []]


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=1,
        initializer_range=0.5,
    )
    return RewardModel(BertForSequenceClassification(config).double().eval(), len(WORDS))


@pytest.fixture
def reward(models):
    return models.reward


def embeddings(reward):
    """Responses off the tokens, where the flow goes."""
    torch.manual_seed(0)
    rows = [reward.table[torch.tensor(row)] for row in MIDDLES]
    return [row + 0.3 * reward.scale * torch.randn_like(row) / 4 for row in rows]


@pytest.mark.parametrize("kind", ["reward", "bert"])
def test_the_gradient_is_the_chain_rules_by_finite_differences(kind, request):
    reward = request.getfixturevalue(kind)
    u = embeddings(reward)
    _, gradients = reward.gradients(PROMPTS, u, ENDS)
    h, random = 1e-5, torch.Generator().manual_seed(1)
    for i, row in enumerate(u):
        for _ in range(3):
            t, c = (int(torch.randint(n, (), generator=random)) for n in row.shape)
            values = []
            for sign in (1, -1):
                moved = [x.clone() for x in u]
                moved[i][t, c] += sign * h
                values.append(float(reward.gradients(PROMPTS, moved, ENDS)[0][i]))
            by_difference = (values[0] - values[1]) / (2 * h)
            assert by_difference == pytest.approx(float(gradients[i][t, c]), rel=1e-6, abs=1e-8)
        assert gradients[i].abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["reward", "bert"])
def test_a_padded_batch_is_its_rows_one_by_one(kind, request):
    reward = request.getfixturevalue(kind)
    u = embeddings(reward)
    together, gradients = reward.gradients(PROMPTS, u, ENDS)
    for i, row in enumerate(u):
        alone, (gradient,) = reward.gradients([PROMPTS[i]], [row], [ENDS[i]])
        assert float(together[i]) == pytest.approx(float(alone[0]), abs=1e-12)
        torch.testing.assert_close(gradients[i], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["reward", "bert"])
def test_unmoved_embeddings_have_the_reward_that_transformers_gives_the_tokens(kind, request):
    reward = request.getfixturevalue(kind)
    rows = [a + b + c for a, b, c in zip(PROMPTS, MIDDLES, ENDS, strict=True)]
    u = [reward.table[torch.tensor(row)] for row in MIDDLES]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        wanted = reward.model(input_ids=ids, attention_mask=mask).logits[:, 0]
    torch.testing.assert_close(reward.rewards(rows), wanted)
    torch.testing.assert_close(reward.gradients(PROMPTS, u, ENDS)[0], wanted)


def test_transformers_reads_padding_when_it_is_given_embeddings(reward):
    """The trap: were it gone, this module could be simpler."""
    rows = [reward.table[torch.tensor(row)] for row in (MIDDLES[0], MIDDLES[1])]
    mask = torch.tensor([[1, 1, 1, 0, 0], [1] * 5])
    padded = torch.nn.utils.rnn.pad_sequence(rows, True)
    with torch.no_grad():
        theirs = reward.model(inputs_embeds=padded, attention_mask=mask).logits[:, 0]
    ours = reward.rewards(MIDDLES[:2])
    assert float(theirs[1]) == pytest.approx(float(ours[1]))
    assert abs(float(theirs[0] - ours[0])) > 1e-3


def test_gradients_leave_the_model_alone(made, reward):
    reward.gradients(PROMPTS, embeddings(reward), ENDS)
    assert all(weight.grad is None for weight in made.rm.parameters())


def test_half_precision_has_particles_in_single(reward):
    half = RewardModel(reward_model(dtype=torch.bfloat16), len(WORDS))
    u = [row.float() for row in embeddings(reward)]
    values, gradients = half.gradients(PROMPTS, u, ENDS)
    assert values.dtype == gradients[0].dtype == half.table.dtype == torch.float32
    exact = reward.gradients(PROMPTS, embeddings(reward), ENDS)[1]
    for got, wanted in zip(gradients, exact, strict=True):
        cosine = torch.cosine_similarity(got.double().flatten(), wanted.flatten(), 0)
        assert float(cosine) > 0.95


def test_a_reward_that_is_not_finite_is_refused():
    broken = reward_model()
    with torch.no_grad():
        broken.score.weight.fill_(float("nan"))
    with pytest.raises(VGFError, match="--rm-dtype"):
        RewardModel(broken, len(WORDS)).rewards([[3, 4]])


def test_the_scale_is_the_root_mean_square_norm(reward):
    norms = reward.model.get_input_embeddings().weight.detach().norm(dim=1)
    assert reward.scale == pytest.approx(float((norms**2).mean() ** 0.5))
