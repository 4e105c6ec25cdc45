"""The flow on responses: the specification's, step by step, and its limits and controls."""

import pytest
from needs import need

need("torch", "transformers")

import dataclasses

import numpy as np
import torch
from tiny_models import PROMPTS

from vgf import Budget, spec
from vgf.text import flow
from vgf.text.flow import Responses

change = dataclasses.replace


def encoded(models):
    return [(i, models.encode(prompt, "", 6)) for i, prompt in enumerate(PROMPTS)]


@pytest.fixture
def samples(models):
    """Responses of different lengths to two prompts, some with an end."""
    rows = [[10, 11, 12, 1], [13, 14, 15, 16, 17, 18], [19, 20]], [[21, 1], [22, 23], [24, 25, 1]]
    return [
        Responses(k, prompt, of, [models.language.movable(row) for row in of])
        for k, (prompt, of) in enumerate(zip(([3, 4], [5]), rows, strict=True))
    ]


def transported(models, responses, settings):
    return flow.transport(models, responses, settings)[0]


def rewards_of(models, of, u):
    found, _ = models.reward.gradients(
        [of.prompt] * len(of.rows),
        [u[i, :n] for i, n in enumerate(of.lengths)],
        [row[n:] for row, n in zip(of.rows, of.lengths, strict=True)],
    )
    return found


def specification(models, of, settings):
    """The flow of one prompt by the specification in NumPy, along the model's gradients."""
    u = flow.embed(models, of).numpy()
    scale, (n, t, d) = models.reward.scale, u.shape
    unit = {"normalised": scale, "adam": scale / d**0.5, "plain": scale**2}
    budget = Budget(
        step_size=settings.step_size * unit[settings.particle_step],
        low=None,
        high=None,
        optimiser="adam" if settings.particle_step == "adam" else "plain",
    )
    state = spec.adam_init(u.reshape(n, t * d))
    for _ in range(max(settings.steps)):
        g = np.zeros_like(u)
        for i, length in enumerate(of.lengths):
            row, end = torch.tensor(u[i, :length]), of.rows[i][length:]
            g[i, :length] = models.reward.gradients([of.prompt], [row], [end])[1][0].numpy()
        v = spec.sequence_phi(u, g, of.lengths, settings.kernel, settings.temperature)
        if settings.particle_step == "normalised":
            v = spec.rescale_sequences(v, of.lengths)
        moved, state = spec.flow_step(u.reshape(n, -1), v.reshape(n, -1), state, budget)
        u = moved.reshape(u.shape)
    return u


@pytest.mark.parametrize("particle_step", ["normalised", "plain", "adam"])
@pytest.mark.parametrize("kernel", [None, "sequence", "position"])
@pytest.mark.parametrize("temperature", [None, 0.1])
def test_the_flow_is_the_specifications(
    models, samples, settings, particle_step, kernel, temperature
):
    settings = change(
        settings,
        particle_step=particle_step,
        kernel=kernel,
        step_size=0.05,
        temperature=temperature,
        steps=(3,),
    )
    found = transported(models, samples, settings)[3]
    for of, u in zip(samples, found, strict=True):
        np.testing.assert_allclose(u, specification(models, of, settings), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("particle_step", ["normalised", "adam"])
def test_budgets_are_snapshots_of_one_flow(models, samples, settings, particle_step):
    settings = change(settings, particle_step=particle_step)
    together = transported(models, samples, settings)
    assert list(together) == [0, 1, 3]
    for steps, of in together.items():
        alone = transported(models, samples, change(settings, steps=(steps,)))[steps]
        assert all(map(torch.equal, alone, of))
    for of, u in zip(samples, together[0], strict=True):
        assert torch.equal(u, flow.embed(models, of))


def test_steps_climb_the_reward_and_the_negative_control_descends(models, samples, settings):
    small = change(settings, step_size=1e-3, steps=(0, 5))
    for direction, sign in (("reward", 1), ("negative", -1)):
        moved = transported(models, samples, change(small, direction=direction))
        for k, of in enumerate(samples):
            gain = rewards_of(models, of, moved[5][k]) - rewards_of(models, of, moved[0][k])
            assert (sign * gain > 0).all()


def test_a_normalised_step_moves_a_token_by_the_step_size(models, samples, settings):
    moved = transported(models, samples, change(settings, steps=(1,), step_size=0.2))[1]
    for of, u in zip(samples, moved, strict=True):
        assert flow.distance(models, of, u) == pytest.approx([0.2] * 3)


def test_the_random_control_is_as_long_as_the_gradient_and_has_nothing_to_do_with_it(
    models, samples, settings
):
    plain = change(settings, particle_step="plain", step_size=1e-2, steps=(1,))
    random = change(plain, direction="random")
    along, astray = (transported(models, samples, of)[1] for of in (plain, random))
    again = transported(models, samples, random)[1]
    other = transported(models, samples, change(random, seed=1))[1]
    for k, of in enumerate(samples):
        there, gone = (u[k] - flow.embed(models, of) for u in (along, astray))
        norms = [x.square().sum((1, 2)).sqrt() for x in (there, gone)]
        torch.testing.assert_close(*norms)
        cosine = (there * gone).sum((1, 2)) / norms[0] / norms[1]
        assert cosine.abs().max() < 0.8
        assert torch.equal(astray[k], again[k])
        assert not torch.equal(astray[k], other[k])


def test_the_random_control_goes_straight(models, samples, settings):
    random = change(settings, direction="random", step_size=0.1, steps=(1, 4))
    moved = transported(models, samples, random)
    for k, of in enumerate(samples):
        assert flow.distance(models, of, moved[4][k]) == pytest.approx([0.4] * 3)


def test_prompts_do_not_affect_each_other(models, samples, settings):
    kernel = change(settings, kernel="sequence", temperature=0.5)
    together = transported(models, samples, kernel)[3]
    for k, of in enumerate(samples):
        torch.testing.assert_close(transported(models, [of], kernel)[3][0], together[k])


def test_ends_stay_and_nothing_special_is_decoded(models, samples, settings):
    far = change(settings, step_size=2.0, steps=(5,))
    moved = transported(models, samples, far)[5]
    for rule in ("likelihood", "nearest"):
        weight = 0.05 if rule == "likelihood" else None
        decoded = flow.decode(
            models, samples, moved, change(far, decoding=rule, decoding_weight=weight)
        )
        for before, after in zip(samples, decoded, strict=True):
            assert max(flow.changed(before, after)) > 0
            for old, new in zip(before.rows, after.rows, strict=True):
                assert len(old) == len(new)
                assert (old[-1] == 1) == (new[-1] == 1)
                assert not {0, 1, 2} & set(new[: -1 if old[-1] == 1 else None])


def test_nearest_decoding_is_the_nearest_allowed_token(models, samples, settings):
    nearest = change(settings, decoding="nearest", decoding_weight=None, step_size=0.8)
    moved = transported(models, samples, nearest)[3]
    decoded = flow.decode(models, samples, moved, nearest)
    table = models.reward.table.numpy()
    for of, after, u in zip(samples, decoded, moved, strict=True):
        for i, length in enumerate(of.lengths):
            distances = spec.squared_distances(u[i, :length].numpy(), table[3:])
            assert after.movable[i] == (distances.argmin(1) + 3).tolist()
    unmoved = flow.decode(models, samples, [flow.embed(models, of) for of in samples], nearest)
    assert [of.rows for of in unmoved] == [of.rows for of in samples]


def test_distance_and_share_by_hand(models, samples):
    of = samples[0]
    u = flow.embed(models, of).clone()
    u[0, 1] += 1.0
    far = flow.distance(models, of, u)
    d = u.shape[-1]
    assert far == pytest.approx([(d / 3) ** 0.5 / models.reward.scale, 0, 0])
    after = of.with_tokens([[10, 30, 12], of.movable[1], [30, 30]])
    assert flow.changed(of, after) == pytest.approx([1 / 3, 0, 1])
    assert after.rows == [[10, 30, 12, 1], of.rows[1], [30, 30]]


def test_the_first_of_the_best_is_picked(models, samples):
    assert flow.best(models, samples[0], torch.tensor([1.0, 3.0, 3.0], dtype=torch.float64)) == 1


def test_samples_are_per_prompt_and_particle(models, settings):
    prompts = encoded(models)
    together = flow.sample(models, prompts, settings)
    assert [len(of.rows) for of in together] == [3, 3, 3]
    alone = flow.sample(models, prompts[1:2], change(settings, batch_tokens=1, particles=2))
    assert alone[0].rows == together[1].rows[:2]
