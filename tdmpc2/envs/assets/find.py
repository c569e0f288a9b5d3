"""Find the asset set of a task; stand-ins are built when they are requested by name."""

from __future__ import annotations

from tdmpc2.common.system.atomic_files import put_in_place
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.assets.asset_set import KINDS, SOURCES, SUBFOLDER, AssetSet, Kind, read_set
from tdmpc2.envs.assets.folders import ADVICE, asset_dir, standin_dir

COMMAND = "python -m tdmpc2.envs.assets"


class MissingAssetsError(UserError):
    """The models that a task needs are missing; the message names the command to install them."""


def find_assets(kind: Kind, wanted: str = "official") -> AssetSet:
    """Return the asset set in `$MS2_ASSET_DIR` (else the default folder) if its source is accepted.

    Args:
        kind: one of `KINDS`.
        wanted: one of `SOURCES`, or several separated by commas, of which the first available
            one is used. Stand-ins are built in the user's cache unless the folder contains some.

    Raises:
        MissingAssetsError: the set has another source, is incomplete, or does not exist.
        UserError: an unknown kind or source.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind}: unknown value{did_you_mean(kind, KINDS)}")
    sources = check_sources(wanted)
    try:
        found, message = read_set(kind, asset_dir()), None
    except UserError as error:
        found, message = None, str(error)
    for source in sources:
        if found is not None and found.source == source:
            return found
        if source == "standin":
            return standin_set(kind)
    raise MissingAssetsError(_refusal(kind, wanted, found, message))


def check_sources(wanted: str) -> list[str]:
    """Split a list of sources, `official,unknown`.

    Raises:
        UserError: an unknown source.
    """
    sources = wanted.split(",")
    for source in sources:
        if source not in SOURCES:
            raise UserError(f"assets={source}: unknown value{did_you_mean(source, SOURCES)}")
    return sources


def standin_set(kind: Kind) -> AssetSet:
    """Return the stand-ins in the user's cache; build them from installed packages if missing.

    Raises:
        UserError: a package is missing, or the set in the cache is not the expected one.
    """
    target = standin_dir() / SUBFOLDER[kind]
    if not target.exists():
        from tdmpc2.envs.assets import faucets, ycb  # import scipy, which no other run needs

        with put_in_place(target, ADVICE) as folder:
            {"ycb": ycb, "faucet": faucets}[kind].write_standins(folder)
    found = read_set(kind, standin_dir())
    if found is None or found.source != "standin":
        raise UserError(
            f"{target}: not the expected stand-ins (changed, or built with other versions of "
            "myosuite, metaworld or scipy than the pinned ones); remove the folder and try again "
            "with the pinned versions"
        )
    return found


def _refusal(kind: Kind, wanted: str, found: AssetSet | None, error: str | None) -> str:
    """Return the error message: which models were found instead, and what to do."""
    if found is not None:
        available = f"the models in {found.folder / SUBFOLDER[kind]} are {found.label}"
    else:
        available = error or f"there are none in {asset_dir()}"
    elsewhere = "" if found is None and error is None else " in another MS2_ASSET_DIR"
    fetch, sources = f"`{COMMAND} fetch {kind}`{elsewhere}", wanted.split(",")
    options = []
    if found is not None:
        options.append(f"assets={found.source} to use those")
    if "official" in sources and kind == "ycb":
        options.append(f"{fetch} for the official ones")
    elif "unknown" in sources and found is None:
        options.append(fetch)
    elif "official" in sources and found is None:
        options.append(
            f"{fetch} and assets=official,unknown (ManiSkill2 publishes no checksums that would "
            "identify its faucets)"
        )
    if "rebuilt" in sources:
        options.append("MS2_ASSET_DIR=<the folder of a rebuilt set>")
    if found is None or found.source != "standin":
        options.append("assets=standin for simple replacements")
    return f"{wanted} {kind} models are required, but {available}; use {', or '.join(options)}"
