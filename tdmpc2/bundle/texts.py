"""Texts and metadata of a bundle, from the templates and the specs of its runs."""

from __future__ import annotations

import json
import mimetypes
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from tdmpc2.common.run.spec import unusual
from tdmpc2.common.system.atomic_files import sha256_of
from tdmpc2.finetune import ARCHITECTURE

Spec = Mapping[str, Any]
PAPER = "https://arxiv.org/abs/2310.16828"
TEMPLATES = Path(__file__).with_name("templates")
TEXTS = ("README.md", "MODEL_CARD.md", "DATA_CARD.md", "COMMANDS.md")


def texts(specs: Sequence[Spec], folders: Sequence[Path], commit: str) -> dict[str, str]:
    """Return the content of each text file of a bundle.

    Args:
        specs: specs of all runs.
        folders: folders of records.
        commit: commit of the code that makes the bundle.
    """
    kinds = Counter(
        tuple(str(spec.get(name) or "-") for name in ("method", "variant", "model_size"))
        for spec in specs
    )
    values = {
        "runs": len(specs),
        "methods": ", ".join(sorted({str(spec["method"]) for spec in specs})),
        "commit": commit,
        "paper": PAPER,
        "table": "\n".join(f"| {' | '.join(kind)} | {n} |" for kind, n in sorted(kinds.items())),
        "folders": ", ".join(folder.name for folder in folders),
        "tasks": ", ".join(sorted({str(spec["task"]) for spec in specs})),
        "seeds": ", ".join(map(str, sorted({int(spec["seed"]) for spec in specs}))),
        "commands": "\n".join(dict.fromkeys(map(command_of, specs))),
    }
    return {
        name: Template((TEMPLATES / name).read_text(encoding="utf-8")).substitute(values)
        for name in TEXTS
    }


def command_of(spec: Spec) -> str:
    """Return the command that trains a run with this spec, as a line for a shell."""
    start = spec.get("start")
    settings = {"task": ",".join(spec.get("tasks") or [spec["task"]]), "seed": spec["seed"]}
    overrides = spec.get("overrides", {})
    if start:
        settings |= {"checkpoint": "CHECKPOINT", "init_embedding": start["embedding"]}
        # Of these two, the command's defaults are not those of a spec.
        overrides = {"seed_with": "random", "precision": "fp32", **overrides}
        overrides = {k: v for k, v in overrides.items() if k not in ARCHITECTURE}
    else:
        settings = {"method": spec["method"], **settings, **spec.get("protocol", {})}
    settings[spec.get("budget_unit", "env_steps")] = spec["budget"]
    if spec.get("dataset"):
        settings["data"] = "DATASET"
    settings |= {name: spec[name] for name in ("eval_every", "eval_episodes") if spec.get(name)}
    # Recorded assets are a name and a checksum.
    settings |= {name: value.partition("-")[0] for name, value in unusual(spec).items()}
    settings |= overrides
    arguments = (
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in settings.items()
    )
    return shlex.join(["tdmpc2", "finetune" if start else "train", *arguments])


def croissant(folder: Path, names: Sequence[str], commit: str) -> dict[str, Any]:
    """Return a Croissant 1.0 description (JSON-LD) of the files.

    Args:
        folder: the bundle.
        names: its files, relative.
        commit: commit of the code that makes the bundle.
    """
    distribution = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "contentSize": f"{(folder / name).stat().st_size} B",
            "encodingFormat": mimetypes.guess_type(name)[0] or "text/plain",
            "sha256": sha256_of(folder / name),
        }
        for name in names
    ]
    return {
        "@context": json.loads((TEMPLATES / "croissant_context.json").read_text(encoding="utf-8")),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "tdmpc2-reproduction-records",
        "description": "Training records and numbers of figures of the TD-MPC2 reproduction suite.",
        "license": "https://spdx.org/licenses/MIT.html",
        "url": PAPER,
        "version": "1.0.0",
        "datePublished": datetime.now(UTC).date().isoformat(),
        "creativeWorkStatus": f"commit {commit}",
        "citeAs": "Hansen, Su, Wang: TD-MPC2: Scalable, Robust World Models for Continuous Control",
        "distribution": distribution,
    }
