"""Fetching the official models: download, checksum, safe unpacking, one move into place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tdmpc2.common.system.atomic_files import sha256_of, write_json
from tdmpc2.common.system.download import download, put_in_place, unpack
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.assets import official
from tdmpc2.envs.assets.asset_set import (
    MANIFEST,
    SUBFOLDER,
    AssetSet,
    Kind,
    fingerprint_of,
    manifest_of,
    packaged_faucets,
    read_set,
)
from tdmpc2.envs.assets.folders import ADVICE, asset_dir


@dataclass(frozen=True)
class _Archive:
    """One zip file.

    Attributes:
        url: where it is.
        sha256: as ManiSkill2 states it; None if it does not.
        top: the folder inside it that holds the models.
        place: where that goes, below the set's folder.
    """

    url: str
    sha256: str | None
    top: str
    place: str

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[-1]


def fetch(kind: Kind, local: Path | None = None) -> AssetSet:
    """Puts the official models into `$MS2_ASSET_DIR` (else the default folder).

    The YCB set becomes `official`: its archive has the checksum that ManiSkill2 states.
    ManiSkill2 states none for the faucets, so they become `unknown`, with a fingerprint
    by which equal sets are known.

    Args:
        kind: of the models.
        local: what was downloaded elsewhere: the archive for `ycb`, the folder of the
            60 archives (`5000.zip` …) for `faucet`.

    Raises:
        UserError: something lies there already, no network, a wrong checksum, an
            archive that is damaged or would write outside its folder.
    """
    folder = asset_dir()
    target = folder / SUBFOLDER[kind]
    if target.exists():
        raise UserError(f"{target} is there already: move it away, or set another MS2_ASSET_DIR")
    archives = _archives(kind)
    files = {} if local is None else _local_files(kind, archives, local)
    with put_in_place(target, ADVICE) as new:
        checksums = {}
        for number, archive in enumerate(archives, start=1):
            file = files.get(archive.url) or new.parent / archive.name
            if archive.url not in files:
                download(archive.url, file, f"{archive.name} ({number}/{len(archives)})")
            checksums[archive.url] = _verified(archive, file)
            unpack(file, archive.top, new / archive.place)
            if archive.url not in files:
                file.unlink()
        fingerprint = fingerprint_of(kind, new.parent)
        write_json(new / MANIFEST, manifest_of(kind, fingerprint, checksums))
    found = read_set(kind, folder)
    assert found is not None
    return found


def _archives(kind: Kind) -> list[_Archive]:
    if kind == "ycb":
        return [_Archive(official.YCB_URL, official.YCB_SHA256, SUBFOLDER["ycb"], "")]
    return [
        _Archive(official.FAUCET_URL.format(model=model), None, model, f"dataset/{model}")
        for model in packaged_faucets()
    ]


def _local_files(kind: Kind, archives: list[_Archive], local: Path) -> dict[str, Path]:
    """Files downloaded elsewhere, checked before anything is written."""
    files = {archive.url: local / archive.name for archive in archives}
    if kind == "ycb":
        files = {archives[0].url: local}
    for archive in archives:
        file = files[archive.url]
        if not file.is_file():
            hint = "" if kind == "ycb" else " (archive= names the folder of the 60 zip files)"
            raise UserError(f"{file}: no such file{hint}; it comes from {archive.url}")
        _verified(archive, file)
    return files


def _verified(archive: _Archive, file: Path) -> str:
    """SHA-256 of an archive, equal to the stated one if there is one."""
    found = sha256_of(file)
    if archive.sha256 is not None and found != archive.sha256:
        raise UserError(
            f"{file}: not the official {archive.name} (SHA-256 {found[:16]}…, "
            f"{archive.sha256[:16]}… is stated); nothing was unpacked"
        )
    return found
