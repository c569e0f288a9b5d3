"""The models two ManiSkill2 tasks need: `python -m tdmpc2.envs.assets list | fetch | build`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.envs.assets import official
from tdmpc2.envs.assets.asset_set import KINDS, AssetSet, Kind, read_set
from tdmpc2.envs.assets.fetch import fetch
from tdmpc2.envs.assets.find import standin_set
from tdmpc2.envs.assets.folders import asset_dir, default_asset_dir, standin_dir


def usage() -> str:
    """Text of `--help`."""
    return f"""usage: python -m tdmpc2.envs.assets [list]
       python -m tdmpc2.envs.assets fetch ycb|faucet [archive=FILE]
       python -m tdmpc2.envs.assets build standin

The models that pick-ycb (ycb) and turn-faucet (faucet) need.

  list   the sets found: in MS2_ASSET_DIR, the default folder and the stand-ins' folder
  fetch  download ManiSkill2's own models, check them, and put them in place
  build  make simple replacements from files inside the installed packages

Sets go to $MS2_ASSET_DIR if that is set, else to {default_asset_dir()};
stand-ins to {standin_dir()}.

  archive=FILE   use what was downloaded elsewhere: for ycb the zip file (verified by the
                 same checksum), for faucet the folder of its 60 zip files

Where a set comes from is known by checksum: official, rebuilt, standin or unknown. A task takes
the official one unless assets= names another. ManiSkill2 states no checksums for its faucets,
so those, when fetched, are `unknown`: use them with assets=unknown.

Licenses:
  ycb     {official.LICENSES["ycb"]}
  faucet  {official.LICENSES["faucet"]}"""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    actions = {"list": _list, "fetch": _fetch, "build": _build}
    action, *rest = arguments or ["list"]
    if action not in actions:
        raise UserError(f"'{action}': unknown action{did_you_mean(action, actions)}")
    actions[action](rest)
    return 0


def _list(arguments: Sequence[str]) -> None:
    if arguments:
        raise UserError(f"list takes no '{arguments[0]}' (see --help)")
    folders = list(dict.fromkeys([asset_dir(), default_asset_dir(), standin_dir()]))
    rows = [row for folder in folders for kind in KINDS if (row := _row(kind, folder))]
    if not rows:
        print(f"no models in {', '.join(map(str, folders))}")
        return
    print(f"{'kind':<8}{'source':<18}{'models':>6}  {'fingerprint':<12}  folder")
    print("\n".join(rows))


def _row(kind: Kind, folder: Path) -> str | None:
    """A line of the table; None if there is no such set."""
    try:
        found = read_set(kind, folder)
    except UserError as error:
        return f"{kind:<8}{'incomplete':<18}{'':>6}  {'':<12}  {error}"
    return None if found is None else _line(found)


def _line(found: AssetSet) -> str:
    return (
        f"{found.kind:<8}{found.label:<18}{len(found.models):>6}  "
        f"{found.fingerprint[:12]}  {found.folder}"
    )


def _fetch(arguments: Sequence[str]) -> None:
    kind, *rest = arguments or [""]
    if kind not in KINDS:
        raise UserError(f"fetch '{kind}': unknown models{did_you_mean(kind, KINDS)}")
    options = cli.parse_arguments(rest, {"archive": Path})
    print(f"license: {official.LICENSES[kind]}")
    found = fetch(kind, options.get("archive"))
    print(_line(found))
    if found.source == "unknown":
        print(
            "their source cannot be verified, since ManiSkill2 states no checksums for them: "
            "use them with assets=unknown"
        )


def _build(arguments: Sequence[str]) -> None:
    if list(arguments) != ["standin"]:
        raise UserError(f"build '{' '.join(arguments)}': only `build standin` is known")
    for kind in KINDS:
        print(_line(standin_set(kind)))


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
