"""Download, verify, unpack and install the official models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tdmpc2.common.system.archives import WITHOUT_NETWORK, unpack
from tdmpc2.common.system.atomic_files import put_in_place, sha256_of, write_json
from tdmpc2.common.system.download import download
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.assets import official
from tdmpc2.envs.assets.asset_set import (
    MANIFEST,
    SUBFOLDER,
    AssetSet,
    Kind,
    fingerprint_of,
    manifest_of,
    read_set,
)
from tdmpc2.envs.assets.folders import ADVICE, asset_dir


@dataclass(frozen=True)
class _Archive:
    """One zip archive.

    Attributes:
        url: URL of the archive.
        sha256: checksum that ManiSkill2 publishes; None if there is none.
        top: folder inside the archive that contains the models.
        place: destination of that folder, relative to the set's folder.
    """

    url: str
    sha256: str | None
    top: str
    place: str

    @property
    def name(self) -> str:
        """File name of the archive."""
        return self.url.rsplit("/", 1)[-1]


def fetch(kind: Kind, local: Path | None = None) -> AssetSet:
    """Install the official models in `$MS2_ASSET_DIR` (else in the default folder).

    The YCB set becomes `official`: ManiSkill2 publishes the checksum of its archive. It
    publishes none for the faucets, so their source is `unknown`, and their fingerprint
    identifies them.

    Args:
        kind: kind of the models.
        local: files that were downloaded before: the archive for `ycb`, the folder of the 60
            archives (`5000.zip` …) for `faucet`.

    Raises:
        UserError: the destination exists, there is no network, a checksum is wrong, or an
            archive is damaged or would write outside its folder.
    """
    folder = asset_dir()
    target = folder / SUBFOLDER[kind]
    if target.exists():
        raise UserError(f"{target} already exists: move it away, or set another MS2_ASSET_DIR")
    archives = _archives(kind)
    files = {} if local is None else _local_files(kind, archives, local)
    with put_in_place(target, ADVICE) as new:
        checksums = {}
        for number, archive in enumerate(archives, start=1):
            file = files.get(archive.url) or new.parent / archive.name
            if archive.url not in files:
                title = f"{archive.name} ({number}/{len(archives)})"
                download(archive.url, file, title=title, advice=WITHOUT_NETWORK)
            checksums[archive.url] = _verified(archive, file)
            unpack(file, archive.top, new / archive.place)
            if archive.url not in files:
                file.unlink()
        fingerprint = fingerprint_of(kind, new.parent)
        write_json(new / MANIFEST, manifest_of(kind, fingerprint, checksums))
    asset_set = read_set(kind, folder)
    assert asset_set is not None
    return asset_set


def _archives(kind: Kind) -> list[_Archive]:
    if kind == "ycb":
        return [_Archive(official.YCB_URL, official.YCB_SHA256, SUBFOLDER["ycb"], "")]
    return [
        _Archive(official.FAUCET_URL.format(model=model), None, model, f"dataset/{model}")
        for model in official.FAUCETS
    ]


def _local_files(kind: Kind, archives: list[_Archive], local: Path) -> dict[str, Path]:
    """Return the files that were downloaded before, verified before anything is written."""
    files = {archive.url: local / archive.name for archive in archives}
    if kind == "ycb":
        files = {archives[0].url: local}
    for archive in archives:
        file = files[archive.url]
        if not file.is_file():
            hint = "" if kind == "ycb" else " (archive= must be the folder of the 60 zip files)"
            raise UserError(f"{file}: no such file{hint}; download it from {archive.url}")
        _verified(archive, file)
    return files


def _verified(archive: _Archive, file: Path) -> str:
    """Return the SHA-256 of an archive, after comparison with the published one if there is one."""
    checksum = sha256_of(file)
    if archive.sha256 is not None and checksum != archive.sha256:
        raise UserError(
            f"{file}: not the official {archive.name} (SHA-256 {checksum[:16]}…, expected "
            f"{archive.sha256[:16]}…); nothing was unpacked; download it again"
        )
    return checksum
