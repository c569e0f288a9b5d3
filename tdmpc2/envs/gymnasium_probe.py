"""Answers a question about an environment in a process of its own; see `probing`.

Questions are `spaces` (about a recipe: dimensions, time limit, whether episodes can end before it),
and `fresh` and `used` (about a task: checksum of some episodes in a new environment, and after
another episode).
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from tdmpc2.common.system.atomic_files import write_json
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.user_code import described
from tdmpc2.envs.gymnasium_env import GymnasiumEnv, check_spaces, make_gymnasium
from tdmpc2.envs.tasks import get_task

DECISIONS = 60
NEUTRAL = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
"""Wrappers that end no episode before its time limit."""


def spaces(recipe: str, where: str) -> dict[str, Any]:
    """Return facts about an environment, see `gymnasium_tasks`.

    Raises:
        UserError: it cannot be made or closed, or its spaces are not supported.
    """
    env = make_gymnasium(recipe, where)
    obs_dim, action_dim = check_spaces(env, where)
    limit = None if env.spec is None else env.spec.max_episode_steps
    facts = {"obs_dim": obs_dim, "action_dim": action_dim, "max_episode_steps": limit}
    facts["episodic"] = not never_ends(env)
    try:
        env.close()
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{where}: close() raised {described(error)}; correct the environment"
        ) from error
    return facts


def never_ends(env: gymnasium.Env) -> bool:
    """Return whether the code of `step` shows that only the time limit ends an episode.

    That is so if each `return` is a tuple whose third and fourth elements are the constant False.
    """
    inner: Any = env
    while isinstance(inner, NEUTRAL):
        inner = inner.env
    if isinstance(inner, gymnasium.Wrapper):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(inner).step)))
    except (OSError, TypeError, SyntaxError):
        return False
    (step,) = tree.body
    if not isinstance(step, ast.FunctionDef) or step.decorator_list:
        return False
    values = [node.value for node in ast.walk(step) if isinstance(node, ast.Return)]
    return bool(values) and all(
        isinstance(value, ast.Tuple)
        and len(value.elts) == 5
        and all(isinstance(e, ast.Constant) and e.value is False for e in value.elts[2:4])
        for value in values
    )


def checksum(name: str, *, used: bool) -> str:
    """Return a checksum of the observations and rewards of some episodes.

    Args:
        name: name of a task.
        used: whether another episode precedes them.
    """
    env = GymnasiumEnv(get_task(name), seed=1)
    content = hashlib.sha256()
    for seed in (2, 1) if used else (1,):
        actions = np.random.default_rng(seed)
        env.reset(seed=seed)
        content, done = hashlib.sha256(), True
        for _ in range(DECISIONS):
            if done:
                content.update(env.reset()[0].tobytes())
            action = actions.uniform(-1, 1, env.action_space.shape)
            obs, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            content.update(obs.tobytes() + repr(reward).encode())
    env.close()
    return content.hexdigest()


def main(question: str, name: str, where: str, file: str) -> None:
    """Write the answer, or an error, to a JSON file.

    Args:
        question: see the module.
        name: recipe or name of a task.
        where: label of the task in messages.
        file: path of the JSON file.
    """
    try:
        if question == "spaces":
            answer: dict[str, Any] = {"answer": spaces(name, where)}
        else:
            answer = {"answer": checksum(name, used=question == "used")}
    except UserError as error:
        answer = {"error": str(error)}
    write_json(Path(file), answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
