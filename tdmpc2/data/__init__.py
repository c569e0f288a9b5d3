"""Datasets of many tasks: building, importing, checking and sampling them."""

from tdmpc2.data.dataset import Dataset
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.data.shard import Shard

__all__ = ["Dataset", "OfflineReplay", "Shard"]
