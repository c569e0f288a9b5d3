"""Test the policy priors against plain loops over the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tdmpc2.common.interfaces import Counters
from tdmpc2.prior import make_prior
from tests.helpers import hand_agent, tiny_config


def draws(num: int, action_dim: int) -> tuple[Tensor, Tensor]:
    """Return network outputs `(num, 2A)` and noise `(num, A)`, some of them large."""
    generator = torch.Generator().manual_seed(0)
    output = 1.5 * torch.randn(num, 2 * action_dim, generator=generator)
    return output, torch.randn(num, action_dim, generator=generator)


def max_entropy_by_loops(
    output: list[float], noise: list[float], valid: list[int], form: str
) -> tuple[list[float], list[float], float]:
    """Compute action, log σ and entropy bonus of one row, dimension by dimension."""
    dim, num_valid = len(noise), sum(valid)
    actions, log_stds, gaussian, correction = [], [], 0.0, 0.0
    for i in range(dim):
        mean = output[i] * valid[i]
        log_std = (-10 + 6 * (math.tanh(output[dim + i]) + 1)) * valid[i]
        epsilon = noise[i] * valid[i]
        action = math.tanh(mean + math.exp(log_std) * epsilon)
        gaussian += -0.5 * epsilon**2 - log_std
        correction += math.log(max(1 - action**2, 0.0) + 1e-6)
        actions.append(action)
        log_stds.append(log_std)
    half_log_2pi = 0.5 * math.log(2 * math.pi)
    if form == "paper":
        log_prob = num_valid * (gaussian - half_log_2pi) - correction
    elif form == "exact":
        log_prob = gaussian - num_valid * half_log_2pi - correction
    else:
        log_prob = num_valid * (gaussian - dim * half_log_2pi)
    return actions, log_stds, -log_prob


@pytest.mark.parametrize("form", ["paper", "official_2024", "exact"])
@pytest.mark.parametrize("masked", [False, True])
def test_max_entropy_prior(form: str, masked: bool) -> None:
    output, noise = draws(8, 3)
    valid = [[1, 1, 1], [1, 0, 0], [1, 1, 0]] if masked else [[1, 1, 1]]
    masks = [valid[i % len(valid)] for i in range(8)]
    prior = make_prior(tiny_config(entropy_form=form))
    assert prior.out_dim(3) == 6
    sample = prior.sample(output, noise, torch.tensor(masks).float() if masked else None)
    for i in range(8):
        action, log_std, bonus = max_entropy_by_loops(
            output[i].tolist(), noise[i].tolist(), masks[i], form
        )
        assert sample.action[i].tolist() == pytest.approx(action, abs=1e-6)
        assert sample.log_std[i].tolist() == pytest.approx(log_std, abs=1e-5)
        # ln(1 − a² + 1e-6) loses digits in float32 where the action is near ±1.
        assert sample.entropy_bonus[i].item() == pytest.approx(bonus, rel=1e-4, abs=2e-2)
        means = [math.tanh(m * v) for m, v in zip(output[i, :3].tolist(), masks[i], strict=True)]
        assert sample.mean[i].tolist() == pytest.approx(means, abs=1e-6)


def test_the_exact_form_is_the_density_of_the_squashed_gaussian() -> None:
    output, noise = draws(64, 3)
    output[:, 3:] = -0.5  # σ neither tiny nor huge, so that no action is at the bound
    sample = make_prior(tiny_config(entropy_form="exact")).sample(0.3 * output, noise, None)
    gaussian = torch.distributions.Normal((0.3 * output).chunk(2, -1)[0], sample.log_std.exp())
    squashed = torch.distributions.TransformedDistribution(
        gaussian, torch.distributions.transforms.TanhTransform(cache_size=1)
    )
    inside = (sample.action.abs() < 0.99).all(-1)
    assert inside.sum() > 40
    expected = -squashed.log_prob(sample.action).sum(-1)
    torch.testing.assert_close(sample.entropy_bonus[inside], expected[inside], rtol=1e-3, atol=1e-3)


def test_the_two_forms_differ_in_gradient_with_respect_to_the_mean() -> None:
    """Only the paper's form has the tanh correction, so only its gradient moves the mean to 0."""
    gradients = {}
    for form in ("paper", "official_2024"):
        output = torch.tensor([[0.8, 0.0]], requires_grad=True)
        sample = make_prior(tiny_config(entropy_form=form)).sample(output, torch.zeros(1, 1), None)
        sample.entropy_bonus.sum().backward()
        gradients[form] = output.grad[0, 0].item()
    # d ln(1 − tanh²μ)/dμ = −2 tanh μ
    assert gradients["paper"] == pytest.approx(-2 * math.tanh(0.8), rel=1e-4)
    assert gradients["official_2024"] == 0.0


@pytest.mark.parametrize(("raw", "log_std"), [(-100.0, -10.0), (0.0, -4.0), (100.0, 2.0)])
def test_range_of_log_std(raw: float, log_std: float) -> None:
    output = torch.tensor([[0.0, raw]])
    sample = make_prior(tiny_config()).sample(output, torch.ones(1, 1), None)
    assert sample.log_std.item() == pytest.approx(log_std)
    assert sample.action.item() == pytest.approx(math.tanh(math.exp(log_std)), rel=1e-5)


# --- Gaussian-noise prior ------------------------------------------------------------


def test_gaussian_noise_prior_by_hand() -> None:
    """Check σ = 0.05, noise clipped to ±0.3, actions to ±1, and no entropy bonus."""
    prior = make_prior(tiny_config(policy_prior="gaussian_noise"))
    assert prior.out_dim(5) == 5
    raw = math.atanh(0.9)
    output = torch.tensor([[0.0, 0.0, raw, raw, -raw]])
    noise = torch.tensor([[1.0, 100.0, -2.0, 10.0, -10.0]])
    sample = prior.sample(output, noise, None)
    torch.testing.assert_close(sample.action, torch.tensor([[0.05, 0.3, 0.8, 1.0, -1.0]]))
    torch.testing.assert_close(sample.mean, torch.tensor([[0.0, 0.0, 0.9, 0.9, -0.9]]))
    assert sample.action.abs().max() <= 1.0
    assert not sample.entropy_bonus.any()
    assert sample.entropy_bonus.shape == (1,)


def test_gaussian_noise_passes_gradients_through_the_clip() -> None:
    output = torch.tensor([[1.0, 1.0]], requires_grad=True)
    noise = torch.tensor([[0.0, 100.0]])
    sample = make_prior(tiny_config(policy_prior="gaussian_noise")).sample(output, noise, None)
    assert sample.action[0, 1] == 1.0  # tanh(1) + 0.3, clipped
    sample.action.sum().backward()
    slope = 1 - math.tanh(1.0) ** 2
    torch.testing.assert_close(output.grad, torch.tensor([[slope, slope]]))


def test_gaussian_noise_prior_masks_padding() -> None:
    prior = make_prior(tiny_config(policy_prior="gaussian_noise"))
    sample = prior.sample(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([[1.0, 0.0]]))
    assert sample.action[0, 0] == pytest.approx(math.tanh(1.0) + 0.05)
    assert sample.action[0, 1] == 0.0
    assert sample.mean[0, 1] == 0.0


@pytest.mark.parametrize(
    ("decisions", "min_std"), [(0, 0.5), (12_500, 0.275), (25_000, 0.05), (99_999, 0.05)]
)
def test_planner_noise_is_annealed_with_the_noisy_prior_only(
    decisions: int, min_std: float
) -> None:
    noisy, default = hand_agent(), hand_agent(policy_prior="max_entropy")
    for agent in (noisy, default):
        agent.updates_due("decision", Counters(decisions, 0, 0))
    assert noisy.min_std() == pytest.approx(min_std)
    assert default.min_std() == 0.05
