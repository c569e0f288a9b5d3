"""The functions that the agent calls through attributes, so that compiled ones can replace them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdmpc2 import elites, losses, planner
from tdmpc2.common.numerics.optim import clip_divisor, differentiate
from tdmpc2.common.replay.episode_replay import Replay

if TYPE_CHECKING:
    from tdmpc2.agent import TDMPC2


class AgentFunctions:
    """Plain functions at first; `acceleration` may replace each by one with equal results.

    Attributes have the types of the plain functions, with which calls are checked.

    Args:
        agent: the agent whose decisions and updates they make.
    """

    def __init__(self, agent: TDMPC2) -> None:
        self.prepare = planner.prepare
        self.iterate = planner.iterate
        self.plan = planner.plan
        self.choose = elites.choose
        self.clip = clip_divisor
        self.model_loss = losses.model_loss
        self.policy_loss = losses.policy_loss
        self.differentiate = differentiate
        self.gather = Replay.gather
        self.decide = agent.decide
        self.learn = agent.learn
