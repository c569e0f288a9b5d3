"""A trained model apart from the run or file it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from tdmpc2.checkpoints.architecture import check_weights
from tdmpc2.common.interfaces import EnvSpec
from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import require_known
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config

VERSION = 1


class Model(NamedTuple):
    """A trained TD-MPC2 model and what is known of it.

    Attributes:
        config: hyperparameters; architecture and planning are those it is to be used with.
        env: shapes and tasks; the order of `task_names` is that of the task embedding.
        weights: for `WorldModel.load_state_dict`, on the CPU.
        facts: where it comes from (`origin` `official` or `run`, `source`, `sha256` …) and how
            its tasks are set up (`obs`, `assets`, `protocol`); plain values.
    """

    config: TDMPC2Config
    env: EnvSpec
    weights: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def multitask(self) -> bool:
        """Whether it tells tasks apart by an embedding."""
        return self.config.task_dim > 0


def describe_model(model: Model) -> dict[str, Any]:
    """What a model file says of its model, in plain values."""
    return {
        "version": VERSION,
        "config": dataclasses.asdict(model.config),
        "env": dataclasses.asdict(model.env),
        "facts": model.facts,
    }


def model_as_described(about: Mapping[str, Any], weights: Mapping[str, Any]) -> Model:
    """Inverse of `describe_model`.

    Raises:
        UserError: another version, a damaged description, or weights of another model.
    """
    if about.get("version") != VERSION:
        raise UserError(f"version {about.get('version')} of the format; this code reads {VERSION}")
    try:
        given, shapes, facts = about["config"], about["env"], dict(about["facts"])
        kinds = cli.schema_of(TDMPC2Config)
        require_known(TDMPC2Config, given)
        values = {k: cli.parse_value(k, str(v), kinds[k]) for k, v in given.items()}
        config = TDMPC2Config.make(**values)
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list | tuple) else v for k, v in shapes.items()
        }
        env = EnvSpec(**fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"damaged description of the model ({error})") from None
    tensors = {k: v for k, v in weights.items() if isinstance(v, Tensor)}
    check_weights(tensors, config, env)
    return Model(config, env, tensors, facts)
