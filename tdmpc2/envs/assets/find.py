"""Finding the models a task asks for; stand-ins are built when they are asked for by name."""

from __future__ import annotations

from tdmpc2.common.system.download import put_in_place
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.assets.asset_set import KINDS, SOURCES, SUBFOLDER, AssetSet, Kind, read_set
from tdmpc2.envs.assets.folders import ADVICE, asset_dir, standin_dir

COMMAND = "python -m tdmpc2.envs.assets"


class MissingAssetsError(UserError):
    """The models that a task needs are not there; the message names the command that gets them."""


def find_assets(kind: Kind, wanted: str = "official") -> AssetSet:
    """The set of models in `$MS2_ASSET_DIR` (else the default folder), if it is a wanted one.

    Args:
        kind: one of `KINDS`.
        wanted: one of `SOURCES`, or several separated by commas, of which the first that is
            there is taken. Stand-ins are built in the user's cache unless the folder holds
            some.

    Raises:
        MissingAssetsError: another source than wanted, an incomplete set, or nothing there.
        UserError: an unknown kind or source.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind}: unknown value{did_you_mean(kind, KINDS)}")
    sources = wanted.split(",")
    for source in sources:
        if source not in SOURCES:
            raise UserError(f"assets={source}: unknown value{did_you_mean(source, SOURCES)}")
    try:
        found, trouble = read_set(kind, asset_dir()), None
    except UserError as error:
        found, trouble = None, str(error)
    for source in sources:
        if found is not None and found.source == source:
            return found
        if source == "standin":
            return standin_set(kind)
    raise MissingAssetsError(_refusal(kind, wanted, found, trouble))


def standin_set(kind: Kind) -> AssetSet:
    """The stand-ins in the user's cache, built from the installed packages if need be.

    Raises:
        UserError: a package is missing, or the result is not the set this version makes.
    """
    target = standin_dir() / SUBFOLDER[kind]
    if not target.exists():
        from tdmpc2.envs.assets import faucets, ycb  # with scipy, which no other run needs

        with put_in_place(target, ADVICE) as folder:
            {"ycb": ycb, "faucet": faucets}[kind].write_standins(folder)
    found = read_set(kind, standin_dir())
    if found is None or found.source != "standin":
        raise UserError(
            f"{target}: not the stand-ins that the pinned packages give (changed, or built with "
            "other versions of myosuite, metaworld or scipy); remove the folder and try again "
            "with the pinned ones"
        )
    return found


def _refusal(kind: Kind, wanted: str, found: AssetSet | None, trouble: str | None) -> str:
    """What lies there instead, and what to type."""
    if found is not None:
        lies = f"the models in {found.folder / SUBFOLDER[kind]} are {found.label}"
    else:
        lies = trouble or f"there are none in {asset_dir()}"
    ways = []
    if found is not None:
        ways.append(f"assets={found.source} to use those")
    if wanted == "official" and kind == "ycb":
        elsewhere = "" if found is None and trouble is None else " in another MS2_ASSET_DIR"
        ways.append(f"`{COMMAND} fetch ycb`{elsewhere} for the official ones")
    elif wanted == "official" and found is None:
        ways.append(
            f"`{COMMAND} fetch faucet` and assets=official,unknown (ManiSkill2 states no checksums "
            "by which to know its faucets)"
        )
    elif wanted == "rebuilt":
        ways.append("MS2_ASSET_DIR=<the folder of a rebuilt set>")
    elif wanted == "unknown" and found is None:
        ways.append(f"`{COMMAND} fetch {kind}`")
    if found is None or found.source != "standin":
        ways.append("assets=standin for simple replacements")
    return f"{wanted} {kind} models are wanted, but {lies}; type {', or '.join(ways)}"
