"""`AssetSet`: the files, fingerprint and source of a set of models."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tdmpc2.common.system.atomic_files import read_json, sha256_of
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.assets import official

Kind = Literal["ycb", "faucet"]
Source = Literal["official", "rebuilt", "standin", "unknown"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SOURCES: tuple[Source, ...] = get_args(Source)

# Names inside ManiSkill2's asset folder; only the list of stand-ins is this project's own.
SUBFOLDER = {"ycb": "mani_skill2_ycb", "faucet": "partnet_mobility"}
YCB_LIST = "info_pick_v0.json"
STANDIN_LIST = "meta/info_faucet_standin.json"
MANIFEST = "source.json"  # written by `fetch`

# Sets that are identified by their fingerprint alone.
KNOWN: dict[str, Source] = {
    # All 74 YCB objects, rebuilt from the google_16k scans; hulls coarser than ManiSkill2's.
    "d5620e5612bd5a662668447fd82106b31fba23b0fe8503929b72e5cac066c695": "rebuilt",
    # An earlier version of the two stand-in faucets.
    "bc9474c1926ad5415089eede972fd3fa7e9262d9c44e1f9fb01e6a85d8aa0c2b": "standin",
    # The results of `ycb.write_standins` and `faucets.write_standins` with the pinned packages.
    "cafb620ab5ce9fffbc7f04f44490e2917dbaea1df473b222b6912568ec816708": "standin",
    "93fc10bb9e637066124925bf48ff2ddb36f95b544675c46162cdfc285273adbf": "standin",
}


@dataclass(frozen=True)
class AssetSet:
    """A set of models of one kind in one folder.

    Attributes:
        kind: `ycb` for PickSingleYCB, `faucet` for TurnFaucet.
        source: origin of the set, identified by checksum.
        folder: the value for `MS2_ASSET_DIR`: it contains `mani_skill2_ycb/` or
            `partnet_mobility/`.
        fingerprint: SHA-256 (hex) of the names and contents of the files that affect physics.
    """

    kind: Kind
    source: Source
    folder: Path
    fingerprint: str

    @property
    def label(self) -> str:
        """The source, for records; a set of unknown source is identified by its fingerprint."""
        return f"unknown-{self.fingerprint[:8]}" if self.source == "unknown" else self.source

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that the task samples from."""
        return tuple(sorted(_model_list(self.kind, self.folder)))

    @property
    def kwargs(self) -> dict[str, Any]:
        """Arguments of `gymnasium.make` that select this set."""
        root = self.folder / SUBFOLDER[self.kind]
        if self.kind == "ycb":
            return {"asset_root": _literal(root), "model_json": YCB_LIST}
        kwargs = {"asset_root": _literal(root / "dataset")}
        if (root / STANDIN_LIST).is_file():
            kwargs["model_json"] = _literal(root / STANDIN_LIST)
        return kwargs


def _literal(path: Path) -> str:
    """Escape a path for `str.format`, which ManiSkill2 applies to it."""
    return str(path).replace("{", "{{").replace("}", "}}")


def read_set(kind: Kind, folder: Path) -> AssetSet | None:
    """Read the asset set in a folder.

    Returns:
        The set, or None if the folder has none.

    Raises:
        UserError: the set is damaged or incomplete.
    """
    if not _begun(kind, folder):
        return None
    fingerprint = fingerprint_of(kind, folder)
    source = KNOWN.get(fingerprint, "unknown")
    if source == "unknown" and _is_official(kind, folder, fingerprint):
        source = "official"
    return AssetSet(kind, source, folder, fingerprint)


def fingerprint_of(kind: Kind, folder: Path) -> str:
    """Compute the SHA-256 of the sorted names and the contents of the files that affect physics.

    Raises:
        UserError: the set is damaged or incomplete.
    """
    names = {path.relative_to(folder).as_posix(): path for path in _physics_files(kind, folder)}
    total = hashlib.sha256()
    for name in sorted(names):
        try:
            total.update(f"{name}\0{sha256_of(names[name])}\n".encode())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise UserError(f"{folder}: incomplete {kind} models, {name} is missing") from None
    return total.hexdigest()


def _is_official(kind: Kind, folder: Path, fingerprint: str) -> bool:
    """Return whether `fetch` unpacked the set from the official archive and no file has changed."""
    manifest = read_json(folder / SUBFOLDER[kind] / MANIFEST)
    return kind == "ycb" and manifest == manifest_of(
        kind, fingerprint, {official.YCB_URL: official.YCB_SHA256}
    )


def manifest_of(kind: Kind, fingerprint: str, archives: dict[str, str]) -> dict[str, Any]:
    """Return the manifest that `fetch` writes beside a set.

    Args:
        kind: kind of the set.
        fingerprint: fingerprint of the unpacked set.
        archives: URL and SHA-256 of each archive.
    """
    return {
        "kind": kind,
        "fingerprint": fingerprint,
        "archives": archives,
        "license": official.LICENSES[kind],
    }


def _begun(kind: Kind, folder: Path) -> bool:
    """Return whether a folder contains files of a set, complete or not.

    ManiSkill2 keeps other models beside its faucets.
    """
    root = folder / SUBFOLDER[kind]
    if kind == "ycb":
        return root.is_dir()
    if not root.is_dir():
        return False
    return (root / STANDIN_LIST).is_file() or any(
        (root / "dataset" / model).is_dir() for model in official.FAUCETS
    )


def _model_list(kind: Kind, folder: Path) -> tuple[str, ...]:
    """Return the names of the models that a complete set has."""
    root = folder / SUBFOLDER[kind]
    if kind == "ycb":
        return _read_list(root / YCB_LIST)
    if (root / STANDIN_LIST).is_file():
        return _read_list(root / STANDIN_LIST)
    return official.FAUCETS


def _read_list(path: Path) -> tuple[str, ...]:
    models = read_json(path)
    if not isinstance(models, dict) or not models:
        raise UserError(f"{path}: missing, or not a list of models; fetch or build the set again")
    return tuple(models)


def _physics_files(kind: Kind, folder: Path) -> list[Path]:
    """Return the files that affect physics, whether they exist or not."""
    root, models = folder / SUBFOLDER[kind], _model_list(kind, folder)
    if kind == "ycb":
        listed = [root / "models" / model / "collision.obj" for model in models]
        return [root / YCB_LIST, *listed, *root.glob("models/*/collision.obj")]
    files = [root / STANDIN_LIST] if (root / STANDIN_LIST).is_file() else []
    for model in models:
        urdf = root / "dataset" / model / "mobility_cvx.urdf"
        files += [urdf, *(urdf.parent / name for name in _collision_meshes(urdf))]
    return files


def _collision_meshes(urdf: Path) -> set[str]:
    """Return the names of the collision meshes in a URDF; empty if the file does not exist."""
    try:
        links = ElementTree.parse(urdf)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except ElementTree.ParseError as error:
        raise UserError(f"{urdf}: damaged ({error}); fetch or build the set again") from None
    return {mesh.attrib["filename"] for mesh in links.iterfind(".//collision/geometry/mesh")}
