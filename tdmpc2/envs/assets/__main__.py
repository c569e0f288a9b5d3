"""List, fetch and build the models of two ManiSkill2 tasks: `python -m tdmpc2.envs.assets`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Settings, setting
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.assets import official
from tdmpc2.envs.assets.asset_set import KINDS, AssetSet, Kind, read_set
from tdmpc2.envs.assets.fetch import fetch
from tdmpc2.envs.assets.find import standin_set
from tdmpc2.envs.assets.folders import asset_dir, default_asset_dir, standin_dir


@dataclass(frozen=True)
class FetchOptions(Settings):
    """Options of `fetch`."""

    archive: Path | None = setting(
        None,
        "use archives that were downloaded before: for ycb the zip file (its checksum is "
        "verified), for faucet the folder of its 60 zip files; default: download",
    )


def usage() -> str:
    """Return the text of `--help`."""
    return f"""usage: python -m tdmpc2.envs.assets [list]
       python -m tdmpc2.envs.assets fetch ycb|faucet [archive=PATH]
       python -m tdmpc2.envs.assets build standin

Manage the models that the tasks pick-ycb (ycb) and turn-faucet (faucet) need.

  list   list the sets in MS2_ASSET_DIR, in the default folder and in the stand-ins' folder
         (default)
  fetch  download ManiSkill2's own models, verify them, and install them
  build  make stand-ins, simple replacements, from files of the installed packages

Fetched sets are installed in $MS2_ASSET_DIR if it is set, else in {default_asset_dir()};
stand-ins in {standin_dir()}.

{cli.describe_fields(FetchOptions)}

The source of a set is identified by checksum: official, rebuilt, standin or unknown. A task
uses the official set unless assets= names another source. ManiSkill2 publishes no checksums of
its faucets, so the source of fetched faucets is `unknown`: use them with assets=unknown.

Licenses:
  ycb     {official.LICENSES["ycb"]}
  faucet  {official.LICENSES["faucet"]}"""


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: an unknown action or argument.
    """
    actions = {"list": _list, "fetch": _fetch, "build": _build}
    action, *rest = arguments or ["list"]
    if action not in actions:
        raise UserError(f"'{action}': unknown action{did_you_mean(action, actions)}")
    actions[action](rest)
    return 0


def _list(arguments: Sequence[str]) -> None:
    if arguments:
        raise UserError(f"list takes no argument, but '{arguments[0]}' is given (see --help)")
    folders = list(dict.fromkeys([asset_dir(), default_asset_dir(), standin_dir()]))
    rows = [row for folder in folders for kind in KINDS if (row := _row(kind, folder))]
    if not rows:
        print(f"no asset sets in {', '.join(map(str, folders))}")
        return
    print(f"{'kind':<8}{'source':<18}{'models':>6}  {'fingerprint':<12}  folder")
    print("\n".join(rows))


def _row(kind: Kind, folder: Path) -> str | None:
    """Return a line of the table, or None if there is no such set."""
    try:
        asset_set = read_set(kind, folder)
    except UserError as error:
        return f"{kind:<8}{'incomplete':<18}{'':>6}  {'':<12}  {error}"
    return None if asset_set is None else _line(asset_set)


def _line(asset_set: AssetSet) -> str:
    return (
        f"{asset_set.kind:<8}{asset_set.label:<18}{len(asset_set.models):>6}  "
        f"{asset_set.fingerprint[:12]}  {asset_set.folder}"
    )


def _fetch(arguments: Sequence[str]) -> None:
    kind, *rest = arguments or [""]
    if kind not in KINDS:
        raise UserError(f"fetch '{kind}': unknown asset set{did_you_mean(kind, KINDS)}")
    options = cli.parse_options(rest, FetchOptions)
    print(f"license: {official.LICENSES[kind]}")
    asset_set = fetch(kind, options.archive)
    print(_line(asset_set))
    if asset_set.source == "unknown":
        print(
            "the source cannot be verified, because ManiSkill2 publishes no checksums of these "
            "models: use them with assets=unknown"
        )


def _build(arguments: Sequence[str]) -> None:
    if list(arguments) != ["standin"]:
        raise UserError(f"build '{' '.join(arguments)}': unknown set (valid: standin)")
    for kind in KINDS:
        print(_line(standin_set(kind)))


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
