"""Test the world model: parameter counts, network inputs, tasks, pixels, target networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tdmpc2.config import TDMPC2Config
from tdmpc2.world_model import WorldModel
from tests.helpers import THREE_TASKS, env_spec, randomize_, tiny_config


def paper_model(
    obs_dim: int, action_dim: int, *, dataset: str | None = None, model_size: str = "5"
) -> WorldModel:
    """Create a full-size model on the meta device, without memory for its parameters."""
    num_tasks = {"mt30": 30, "mt80": 80, None: 1}[dataset]
    config = TDMPC2Config.make(
        model_size=model_size, dataset=dataset, multitask=dataset is not None
    )
    env = env_spec((obs_dim,), (action_dim,) * num_tasks, (500,) * num_tasks)
    with torch.device("meta"):
        return WorldModel(config, env)


@pytest.mark.parametrize(
    ("task", "obs_dim", "action_dim", "model_size", "expected"),
    [
        ("walker", 24, 6, "5", 4_960_618),
        ("dog", 223, 38, "5", 5_159_082),
        ("humanoid", 67, 21, "5", 5_040_776),
        ("meta-world", 39, 4, "5", 4_955_238),
        ("pick-ycb", 51, 7, "5", 4_972_140),
        ("myo-reach", 115, 39, "5", 5_136_044),
        ("walker", 24, 6, "1", 1_214_651),
    ],
)
def test_parameters_of_single_task_models(
    task: str, obs_dim: int, action_dim: int, model_size: str, expected: int
) -> None:
    assert paper_model(obs_dim, action_dim, model_size=model_size).num_parameters() == expected


@pytest.mark.parametrize(
    ("model_size", "mt80", "mt30"),
    [
        ("1", 1_435_067, 1_426_427),
        ("5", 5_389_930, 5_241_066),
        ("19", 18_970_218, 16_031_210),
        ("48", 48_791_146, 48_242_410),
        ("317", 317_383_129, 317_316_889),
    ],
)
def test_parameters_of_multi_task_models(model_size: str, mt80: int, mt30: int) -> None:
    assert paper_model(39, 6, dataset="mt80", model_size=model_size).num_parameters() == mt80
    assert paper_model(24, 6, dataset="mt30", model_size=model_size).num_parameters() == mt30


def test_parameters_network_by_network() -> None:
    model = paper_model(39, 6, dataset="mt80")
    networks = {
        "encoder": 167_936,
        "dynamics": 843_264,
        "reward_head": 631_397,
        "policy": 582_668,
        "q_functions": 3_156_985,
        "target_q_functions": 3_156_985,
    }
    for name, expected in networks.items():
        assert sum(p.numel() for p in getattr(model, name).parameters()) == expected, name
    assert model.task_embedding is not None
    assert model.task_embedding.numel() == 7_680


def test_reward_and_value_start_at_exactly_zero() -> None:
    model = WorldModel(tiny_config(), env_spec())
    z, a = torch.rand(4, 16), torch.rand(4, 2)
    assert not model.reward(z, a).any()
    assert not model.q(z, a).any()
    assert not model.q(z, a, target=True).any()
    assert model.next(z, a).std() > 0
    for online, target in zip(
        model.q_functions.parameters(), model.target_q_functions.parameters(), strict=True
    ):
        assert torch.equal(online, target)
        assert online.requires_grad
        assert not target.requires_grad


def test_embeddings_start_small() -> None:
    model = WorldModel(tiny_config(task_dim=64), env_spec((5,), (2,) * 50, (500,) * 50))
    table = model.task_embedding
    assert table.shape == (50, 64)
    assert 0.0195 < table.abs().max() <= 0.02
    assert table.std().item() == pytest.approx(0.02 / 3**0.5, rel=0.05)


def test_networks_see_latent_embedding_action_in_this_order() -> None:
    """With the first layer's weights of an input set to 0, the output ignores this input."""
    model = randomize_(WorldModel(tiny_config(task_dim=4), THREE_TASKS))
    context = model.context(torch.tensor([0, 1, 2, 0]))
    z, a = torch.rand(4, 16), torch.rand(4, 3)
    blocks = {"latent": slice(0, 16), "embedding": slice(16, 20), "action": slice(20, 23)}
    others = {
        "latent": (torch.rand(4, 16), a, context),
        "embedding": (z, a, context._replace(embedding=torch.rand(4, 4))),
        "action": (z, torch.rand(4, 3), context),
    }
    networks = {
        "next": model.dynamics[0].linear,
        "reward": model.reward_head[0].linear,
        "q": model.q_functions.linear1,
    }
    for name, layer in networks.items():
        call = getattr(model, name)
        for block, columns in blocks.items():
            kept = layer.weight.detach().clone()
            assert not torch.allclose(call(z, a, context), call(*others[block]), atol=1e-4)
            with torch.no_grad():
                layer.weight[..., columns] = 0
            torch.testing.assert_close(call(z, a, context), call(*others[block]))
            with torch.no_grad():
                layer.weight.copy_(kept)


def test_policy_and_encoder_see_the_embedding() -> None:
    model = randomize_(WorldModel(tiny_config(task_dim=4), THREE_TASKS))
    assert model.encoder[0].linear.weight.shape[1] == 5 + 4
    assert model.policy[0].linear.weight.shape[1] == 16 + 4
    obs, first, second = torch.rand(1, 5), *torch.tensor([[0], [2]])
    assert not torch.allclose(
        model.encode(obs, model.context(first)), model.encode(obs, model.context(second))
    )


def test_context_broadcasts_over_time() -> None:
    """Inputs `(H, B, ·)` give the same results as H inputs `(B, ·)`."""
    model = randomize_(WorldModel(tiny_config(task_dim=4), THREE_TASKS))
    context = model.context(torch.tensor([0, 1, 2, 0]))
    z, a, noise = torch.rand(3, 4, 16), torch.rand(3, 4, 3), torch.randn(3, 4, 3)
    for t in range(3):
        torch.testing.assert_close(model.next(z, a, context)[t], model.next(z[t], a[t], context))
        torch.testing.assert_close(model.q(z, a, context)[:, t], model.q(z[t], a[t], context))
        whole, single = model.pi(z, noise, context), model.pi(z[t], noise[t], context)
        torch.testing.assert_close(whole.action[t], single.action)
        torch.testing.assert_close(whole.entropy_bonus[t], single.entropy_bonus)


def test_padded_action_dimensions_get_zero() -> None:
    model = randomize_(WorldModel(tiny_config(task_dim=4), THREE_TASKS))
    context = model.context(torch.tensor([0, 1, 2]))
    assert context.action_mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    sample = model.pi(torch.rand(3, 16), torch.randn(3, 3), context)
    for values in (sample.action, sample.mean, sample.log_std):
        assert ((values == 0) == (context.action_mask == 0)).all()


def norms_after_projection(normalize: bool) -> tuple[list[float], torch.Tensor, torch.Tensor]:
    """Return the norms of four embeddings of norm 5, 0.5, 5, 5 after using the first three."""
    config = tiny_config(task_dim=4, normalize_task_embedding=normalize)
    model = WorldModel(config, env_spec((5,), (2,) * 4, (500,) * 4))
    with torch.no_grad():
        model.task_embedding.copy_(torch.tensor([5.0, 0.5, 5.0, 5.0])[:, None] / 2)
    before = model.task_embedding.detach().clone()
    model.renormalize_task_embedding(torch.tensor([0, 1, 0, 2]))
    return model.task_embedding.norm(dim=1).tolist(), before, model.task_embedding


def test_embeddings_are_projected_onto_the_unit_ball() -> None:
    """Only embeddings that are used and have a norm above 1 change; their direction does not."""
    norms, before, after = norms_after_projection(normalize=True)
    assert norms == pytest.approx([1.0, 0.5, 1.0, 5.0], rel=1e-5)
    torch.testing.assert_close(after[0] * 5, before[0], rtol=1e-5, atol=0)


def test_embeddings_stay_as_they_are_without_the_flag() -> None:
    _, before, after = norms_after_projection(normalize=False)
    assert torch.equal(before, after)


def test_target_networks_move_by_tau() -> None:
    model = randomize_(WorldModel(tiny_config(), env_spec()))
    online = [p.detach().clone() for p in model.q_functions.parameters()]
    target = [p.detach().clone() for p in model.target_q_functions.parameters()]
    model.update_target(0.01)
    for new, old, goal in zip(model.target_q_functions.parameters(), target, online, strict=True):
        torch.testing.assert_close(new.detach(), 0.99 * old + 0.01 * goal, rtol=1e-6, atol=1e-7)
        assert not torch.equal(new, old)
    assert all(map(torch.equal, model.q_functions.parameters(), online))


@pytest.mark.parametrize("leading", [(2,), (3, 2)])
def test_pixels_are_shifted_image_by_image(leading: tuple[int, ...]) -> None:
    model = WorldModel(tiny_config(latent_dim=512), env_spec((9, 64, 64)))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (*leading, 9, 64, 64), generator=generator).to(torch.uint8)
    shift = torch.randint(7, (*leading, 2), generator=generator)
    latent = model.encode(images, shift=shift)
    assert latent.shape == (*leading, 512)
    torch.testing.assert_close(latent.view(*leading, 64, 8).sum(-1), torch.ones(*leading, 64))
    for place in np.ndindex(*leading):
        row, col = shift[place].tolist()
        padded = np.pad(images[place].numpy(), ((0, 0), (3, 3), (3, 3)), mode="edge")
        crop = torch.from_numpy(padded[:, row : row + 64, col : col + 64].copy())
        expected = model.encode(crop[None])[0]
        torch.testing.assert_close(latent[place], expected, rtol=1e-4, atol=1e-6)


def test_missing_pieces_are_named() -> None:
    with pytest.raises(ValueError, match="episodic"):
        WorldModel(tiny_config(), env_spec()).termination(torch.rand(1, 16))
    with pytest.raises(ValueError, match="task"):
        WorldModel(tiny_config(task_dim=4), THREE_TASKS).context(None)


def test_termination_head_starts_undecided_and_reads_the_latent() -> None:
    model = WorldModel(tiny_config(), env_spec(episodic=True))
    assert model.termination(torch.rand(3, 4, 16)).shape == (3, 4)
    assert model.termination_head is not None
    assert model.termination_head[0].linear.weight.shape[1] == 16
