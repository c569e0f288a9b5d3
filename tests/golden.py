"""Loads the golden arrays: the official implementation's outputs with every draw recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tdmpc2.agent import TDMPC2
from tdmpc2.checkpoints.official import import_official
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.replay.types import Batch
from tdmpc2.config import TDMPC2Config
from tdmpc2.noise import PlanNoise, UpdateNoise

DATA = Path(__file__).parent / "data"
FILES = ("paper_single_task", "paper_multi_task", "head2026_single_task", "head2026_multi_task")
CONFIG_FIELDS = [
    "batch_size",
    "reward_coef",
    "value_coef",
    "consistency_coef",
    "rho",
    "lr",
    "enc_lr_scale",
    "grad_clip_norm",
    "tau",
    "iterations",
    "num_samples",
    "num_elites",
    "horizon",
    "min_std",
    "max_std",
    "temperature",
    "log_std_min",
    "log_std_max",
    "entropy_coef",
    "num_bins",
    "vmin",
    "vmax",
    "num_enc_layers",
    "enc_dim",
    "mlp_dim",
    "latent_dim",
    "task_dim",
    "num_q",
    "dropout",
    "simnorm_dim",
]


class Golden:
    """One golden file as an agent with the recorded weights and a reader of its arrays.

    Args:
        name: of the file.
        device: of the agent and of every array that is read.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        self.name, self.device = name, torch.device(device)
        self.arrays = dict(np.load(DATA / f"{name}.npz"))
        self.raw: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
        self.multitask = self.raw["task_dim"] > 0
        self.is_paper = name.startswith("paper")

    def __call__(self, key: str) -> Tensor:
        """An array as a tensor."""
        return torch.from_numpy(np.asarray(self.arrays[key])).to(self.device)

    def has(self, key: str) -> bool:
        """Whether the file holds an array."""
        return key in self.arrays

    def config(self, precision: Literal["fp32", "bf16"] = "fp32") -> TDMPC2Config:
        """The recorded configuration in this project's names."""
        values = {k: self.raw[k] for k in CONFIG_FIELDS}
        return TDMPC2Config.make(
            **values,
            precision=precision,
            num_pi_samples=self.raw["num_pi_trajs"],
            entropy_form="paper" if self.is_paper else "official_2024",
            dropout_in="everywhere" if self.is_paper else "model_and_policy_loss",
        )

    def env(self) -> EnvSpec:
        """Shapes and tasks of the recorded model."""
        if self.multitask:
            action_dims = tuple(int(x) for x in self.arrays["in/action_dims"])
            lengths = tuple(int(x) for x in self.arrays["in/episode_lengths"])
        else:
            action_dims, lengths = (self.raw["action_dim"],), (self.raw["episode_length"],)
        return EnvSpec(
            obs_shape=(self.arrays["in/obs"].shape[-1],),
            action_dim=self.raw["action_dim"],
            episode_lengths=lengths,
            action_repeats=(2,) * len(lengths),
            action_dims=action_dims,
            task_names=tuple(f"task{i}" for i in range(len(lengths))),
        )

    def weights(self, prefix: str = "state_dict/") -> dict[str, Tensor]:
        """Weights under a prefix, in this project's names."""
        found = {k[len(prefix) :]: self(k) for k in self.arrays if k.startswith(prefix)}
        return import_official(found)

    def agent(self, precision: Literal["fp32", "bf16"] = "fp32") -> TDMPC2:
        """An agent with the recorded weights."""
        agent = TDMPC2(self.config(precision), self.env(), seed=0, device=self.device)
        agent.model.load_state_dict(self.weights())
        return agent

    def task(self) -> Tensor | None:
        """Task of every row of the batch."""
        return self("in/task").long() if self.multitask else None

    def batch(self) -> Batch:
        """The recorded batch."""
        return Batch(
            obs=self("in/obs"),
            action=self("in/action"),
            reward=self("in/reward")[..., 0],
            terminated=self("in/terminated")[..., 0],
            task=self.task(),
        )

    def update_noise(self, step: str) -> UpdateNoise:
        """The recorded draws of a gradient step, `update1` or `update2`."""
        return UpdateNoise(
            target_policy=self(f"{step}/target_policy_noise"),
            target_heads=self(f"{step}/target_q_indices").long(),
            policy=self(f"{step}/policy_noise"),
            policy_heads=self(f"{step}/policy_q_indices").long(),
        )

    def plan_noise(self, case: str) -> PlanNoise:
        """The recorded draws of a planning call, with the batch dimension added."""
        if self.has(f"{case}/exponential"):
            elite = self(f"{case}/exponential")[None]
        else:
            # A vanishing Exp(1) draw makes that elite win the Gumbel-max choice.
            elite = torch.ones(1, self.raw["num_elites"], device=self.device)
            elite[0, int(self(f"{case}/elite_index"))] = 1e-30
        key = f"{case}/action_noise"
        return PlanNoise(
            policy=self(f"{case}/policy_noise")[:, None],
            samples=self(f"{case}/sample_noise")[:, :, None],
            terminal_policy=self(f"{case}/terminal_policy_noise")[:, None],
            heads=self(f"{case}/q_indices").long(),
            elite=elite,
            action=self(key)[None] if self.has(key) else None,
        )
