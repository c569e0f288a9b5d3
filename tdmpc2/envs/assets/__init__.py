"""Models that two ManiSkill2 tasks need: location, identification and download."""

from tdmpc2.envs.assets.asset_set import KINDS, SOURCES, AssetSet
from tdmpc2.envs.assets.find import MissingAssetsError, check_sources, find_assets
from tdmpc2.envs.assets.folders import default_asset_dir

__all__ = [
    "KINDS",
    "SOURCES",
    "AssetSet",
    "MissingAssetsError",
    "check_sources",
    "default_asset_dir",
    "find_assets",
]
