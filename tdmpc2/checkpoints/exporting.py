"""Export a model to official checkpoint formats (old and new keys) and to safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tdmpc2.checkpoints.model import Model
from tdmpc2.checkpoints.model_file import save_model
from tdmpc2.checkpoints.official import KeyFormat, export_official
from tdmpc2.checkpoints.options import Format
from tdmpc2.checkpoints.reading import check_target, write_weights
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config

_KEYS: dict[str, KeyFormat] = {"official": "new", "official-old": "old"}

# The only variant of the model that the official code supports.
_OFFICIAL_FORM = {
    "latent_norm": "simnorm",
    "simnorm_tau": 1.0,
    "hidden_norm": "layernorm",
    "regression": "discrete",
    "policy_prior": "max_entropy",
}
# Settings that change how the model acts; a reader of the file must set them if not the default.
_SETTINGS = (
    *("enc_dim", "mlp_dim", "latent_dim", "num_enc_layers", "num_q", "task_dim", "simnorm_dim"),
    *("num_bins", "vmin", "vmax", "log_std_min", "log_std_max", "planning", "horizon"),
    *("iterations", "num_samples", "num_elites", "num_pi_samples", "min_std", "max_std"),
    *("temperature", "momentum", "discount_denom", "discount_min", "discount_max"),
)


def export_model(model: Model, path: Path, form: Format) -> list[str]:
    """Write a model to a new file.

    Args:
        model: the model to write.
        path: path that ends in `.pt`, or in `.safetensors` for that format.
        form: `official` and `official-old` are `{"model": state dict}` in the key formats of
            the official code since 2024 and before; `safetensors` is a model file of this
            project, which also contains configuration, tasks and origin.

    Returns:
        Settings that a reader of the file must set, because the file does not contain them.

    Raises:
        UserError: the file exists, its suffix is wrong, or the format cannot represent the
            model.
    """
    check_target(path, (".safetensors",) if form == "safetensors" else (".pt",))
    if form == "safetensors":
        save_model(path, model)
        return []
    write_weights(path, official_state(model, _KEYS[form]))
    return list(_missing_settings(model, _KEYS[form]))


def official_state(model: Model, keys: KeyFormat) -> dict[str, Any]:
    """Return the official `state_dict` of a model.

    Raises:
        UserError: the official format cannot represent the model.
    """
    config = model.config
    if model.env.pixels:
        raise UserError("the official format can be exported for state observations only")
    form = _OFFICIAL_FORM | ({"normalize_task_embedding": True} if model.multitask else {})
    for name, value in form.items():
        if getattr(config, name) != value:
            raise UserError(
                f"{name}={getattr(config, name)}: the official code supports only {name}={value}"
            )
    if keys == "old" and model.env.episodic:
        raise UserError(
            "format=official-old: cannot represent a model that predicts termination; use "
            "format=official"
        )
    return export_official(
        model.weights,
        keys,
        log_std=(config.log_std_min, config.log_std_max),
        action_dims=model.env.action_dims,
    )


def _missing_settings(model: Model, keys: KeyFormat) -> Iterator[str]:
    size = "5" if model.config.model_size == "smoke" else model.config.model_size
    plain = TDMPC2Config.make(model_size=size, multitask=model.multitask)
    for name in _SETTINGS:
        value = getattr(model.config, name)
        stored = keys == "new" and name.startswith("log_std")
        if value != getattr(plain, name) and not stored:
            yield f"{name}={value}"
