"""`Model`: a trained model, independent of the run or file it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from torch import Tensor

from tdmpc2.checkpoints.architecture import check_weights
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import require, require_known
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config

VERSION = 1


class Model(NamedTuple):
    """A trained TD-MPC2 model with its configuration, tasks and facts.

    Attributes:
        config: hyperparameters, including those of planning.
        env: shapes and tasks; the order of `task_names` is that of the task embedding.
        weights: weights for `WorldModel.load_state_dict`, on the CPU.
        facts: its origin (`origin` `official` or `run`, `source`, `sha256` …) and the settings of
            its tasks (`obs`, `assets`, `protocol`); plain values.
    """

    config: TDMPC2Config
    env: EnvSpec
    weights: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def multitask(self) -> bool:
        """Whether it has a task embedding."""
        return self.config.task_dim > 0


def describe_model(model: Model) -> dict[str, Any]:
    """Return the description of a model that a model file contains, in plain values."""
    return {
        "version": VERSION,
        "config": dataclasses.asdict(model.config),
        "env": dataclasses.asdict(model.env),
        "facts": model.facts,
    }


def model_as_described(about: Mapping[str, Any], weights: Mapping[str, Any]) -> Model:
    """Build a model from its description: the inverse of `describe_model`.

    Raises:
        UserError: the version differs, the description is damaged, or the weights do not fit it.
    """
    if about.get("version") != VERSION:
        raise UserError(f"format version {about.get('version')}; this code reads {VERSION}")
    try:
        settings, shapes, facts = about["config"], about["env"], dict(about["facts"])
        kinds = cli.schema_of(TDMPC2Config)
        require_known(TDMPC2Config, settings)
        values = {k: cli.parse_value(k, str(v), kinds[k]) for k, v in settings.items()}
        config = TDMPC2Config.make(**values)
        env = msgspec.convert(shapes, EnvSpec)
        per_task = (env.episode_lengths, env.action_repeats, env.action_dims, env.task_names)
        equal = len({len(one) for one in per_task}) == 1
        require(equal, "damaged description of the model (its tasks differ in number)")
        if facts.get("step_unit") == "decisions":
            msgspec.convert(facts["step"], int)
        tensors = {k: v for k, v in weights.items() if isinstance(v, Tensor)}
        check_weights(tensors, config, env)
    # Torch raises a RuntimeError for impossible shapes.
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"damaged description of the model ({error})") from None
    return Model(config, env, tensors, facts)
