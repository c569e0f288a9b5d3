"""A model in the formats of others: official checkpoints, old and new, and safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.model_file import save_model
from tdmpc2.checkpoints.official import KeyFormat, export_official
from tdmpc2.checkpoints.reading import check_target, write_weights
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config

Format = Literal["official", "official-old", "safetensors"]
FORMATS: tuple[str, ...] = get_args(Format)
_KEYS: dict[str, KeyFormat] = {"official": "new", "official-old": "old"}

# The only form of the model that the official code knows.
_OFFICIAL_FORM = {
    "latent_norm": "simnorm",
    "simnorm_tau": 1.0,
    "hidden_norm": "layernorm",
    "regression": "discrete",
    "policy_prior": "max_entropy",
}
# What the official code must be told where it isn't the default: it decides how the model acts.
_SETTINGS = (
    *("enc_dim", "mlp_dim", "latent_dim", "num_enc_layers", "num_q", "task_dim", "simnorm_dim"),
    *("num_bins", "vmin", "vmax", "log_std_min", "log_std_max", "planning", "horizon"),
    *("iterations", "num_samples", "num_elites", "num_pi_samples", "min_std", "max_std"),
    *("temperature", "momentum", "discount_denom", "discount_min", "discount_max"),
)


def export_model(model: Model, path: Path, form: Format) -> list[str]:
    """Writes a model to a file that is not there yet.

    Args:
        model: to be written.
        path: ends in `.pt`, or in `.safetensors` for that format.
        form: `official` and `official-old` are `{"model": state dict}` in the key formats of
            the official code since 2024 and before; `safetensors` is a model file of this
            project, which also says configuration, tasks and origin.

    Returns:
        Settings that a reader of the file has to know, since the file does not say them.

    Raises:
        UserError: something is there already, another suffix, or a model that the format cannot
            hold.
    """
    check_target(path, (".safetensors",) if form == "safetensors" else (".pt",))
    if form == "safetensors":
        save_model(path, model)
        return []
    write_weights(path, official_state(model, _KEYS[form]))
    return list(_unsaid(model, _KEYS[form]))


def official_state(model: Model, keys: KeyFormat) -> dict[str, Any]:
    """The official `state_dict` of a model.

    Raises:
        UserError: a model that the official code cannot hold.
    """
    config = model.config
    if model.env.pixels:
        raise UserError("the official format is written for state observations only")
    for name, value in _OFFICIAL_FORM.items():
        if getattr(config, name) != value:
            raise UserError(
                f"{name}={getattr(config, name)}: the official code only knows {name}={value}"
            )
    if keys == "old" and model.env.episodic:
        raise UserError("the code of the old format predicts no termination; use format=official")
    return export_official(
        model.weights,
        keys,
        log_std=(config.log_std_min, config.log_std_max),
        action_dims=model.env.action_dims,
    )


def _unsaid(model: Model, keys: KeyFormat) -> Iterator[str]:
    size = "5" if model.config.model_size == "smoke" else model.config.model_size
    plain = TDMPC2Config.make(model_size=size, multitask=model.multitask)
    for name in _SETTINGS:
        value = getattr(model.config, name)
        said = keys == "new" and name.startswith("log_std")
        if value != getattr(plain, name) and not said:
            yield f"{name}={value}"
