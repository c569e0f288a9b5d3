"""Multi-task datasets: building, converting, checking and sampling."""

from tdmpc2.data.dataset import Dataset
from tdmpc2.data.offline_replay import OfflineReplay
from tdmpc2.data.shard import Shard

__all__ = ["Dataset", "OfflineReplay", "Shard"]
