"""Names and tables of Gymnasium tasks, and environments that are refused in one line."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.envs import gymnasium_tasks
from tdmpc2.envs.factory import make_env
from tdmpc2.envs.gymnasium_tasks import VARIABLE, find_task, own_tables, with_arguments
from tdmpc2.envs.tasks import get_task

OWN = "tests.envs.own_envs:"


@pytest.fixture(autouse=True)
def fresh():
    find_task.cache_clear()
    yield
    find_task.cache_clear()


def table(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Define tasks in a file that the environment variable names."""
    path = folder / "tasks.toml"
    path.write_text(text)
    monkeypatch.setenv(VARIABLE, str(path))


def test_facts_of_a_registered_environment():
    task = get_task("gym:Hopper-v5")
    assert (task.obs_dim, task.action_dim, task.episode_length) == (11, 3, 1000)
    assert (task.name, task.title, task.domain) == ("gym:Hopper-v5", "Hopper-v5", "gymnasium")
    assert (task.action_repeat, task.metric, task.score_range) == (1, "return", None)
    assert np.isnan(task.normalized_score(100.0, 0.0))


@pytest.mark.parametrize(
    ("name", "episodic"),
    [
        ("gym:Hopper-v5", True),
        ("gym:HalfCheetah-v5", False),
        ("gym:Pendulum-v1", False),
        ("gym:MountainCarContinuous-v0", True),
        (f"{OWN}Line-v0", True),
        (f"{OWN}Endless-v0", False),
        (f"{OWN}Short-v0", True),
    ],
)
def test_termination_is_learned_unless_the_code_excludes_it(name, episodic):
    assert get_task(name).episodic == episodic


def test_names_can_be_folders_and_are_found_again():
    task = get_task(f"gym:{OWN}ns/Frame-v0?size=40")
    assert task.name == f"{OWN}ns%2FFrame-v0?size=40"
    assert get_task(task.name) == task
    assert task.obs_dim == 5
    assert task.action_dim == 2


def test_arguments_reach_the_environment_and_are_part_of_the_name():
    text = '{"max_episode_steps": 7, "reset_noise_scale": 0.0}'
    name = with_arguments("gym:Hopper-v5", text)
    assert name == "gym:Hopper-v5?max_episode_steps=7&reset_noise_scale=0.0"
    task = get_task(name)
    assert task.episode_length == 7
    env = make_env(task, seed=1)
    np.testing.assert_array_equal(env.reset(seed=1)[0], env.reset(seed=2)[0])
    same = with_arguments("gym:X?b=x", '{"a": ["1", 2], "c": "1"}')
    assert gymnasium_tasks.arguments_of(same.partition("?")[2]) == {
        "a": ["1", 2],
        "b": "x",
        "c": "1",
    }


def test_actions_are_rescaled_and_observations_flattened():
    env = make_env(f"{OWN}Line-v0", seed=0)
    first, _ = env.reset(seed=0)
    for action, velocity in ((-1.0, -4.0), (0.0, 0.0), (1.0, 4.0), (0.5, 2.0)):
        before, _ = env.reset(seed=0)
        obs, reward, terminated, truncated, _ = env.step(np.array([action]))
        np.testing.assert_allclose(obs, before + 0.1 * velocity, rtol=1e-6)
        assert reward == pytest.approx(1 - abs(float(obs[0])))
        assert (terminated, truncated) == (False, False)
    frame, _ = make_env(f"{OWN}ns/Frame-v0", seed=0).reset(seed=0)
    # The space sorts its keys: `image` comes before `x`.
    np.testing.assert_array_equal(frame, [0.5, 0.5, 0.5, 0.5, first[0]])


def test_termination_and_success():
    env = make_env(f"{OWN}Line-v0", seed=0)
    env.reset(seed=0)
    ends = [(False, False)]
    while not any(ends[-1]):
        ends.append(env.step(np.ones(1))[2:4])
    assert ends[-1] == (True, False)
    assert 17 < len(ends) < 25  # from -1 to 1, past 8, at 0.4 per decision
    position = env.reset(seed=0)[0][0]
    action = np.array([-position / 0.4])
    assert env.step(action)[4] == {"success": 1.0, "success_ever": 1.0}


def test_an_environment_may_cut_an_episode_off():
    env = make_env(f"{OWN}Short-v0", seed=0)
    env.reset()
    ends = [env.step(np.zeros(1))[2:4] for _ in range(5)]
    assert ends[-1] == (False, True)
    assert ends[:-1] == [(False, False)] * 4


def test_frames_have_even_sides(monkeypatch):
    monkeypatch.setattr("tdmpc2.envs.factory.prepare_rendering", lambda: "egl")
    env = make_env(f"{OWN}ns/Frame-v0", seed=0, render=True)
    env.reset()
    assert env.render().shape == (32, 32, 3)


def test_a_table_sets_the_facts_of_a_task(tmp_path, monkeypatch):
    text = f"""
    [my-line]
    id = "{OWN}Line-v0"
    action_repeat = 2
    episode_length = 10
    metric = "success"
    success_key = "is_success"
    score_range = [-50, 100]
    budget = 4_000
    eval_every = 500
    kwargs = {{ max_episode_steps = 40 }}
    """
    table(tmp_path, monkeypatch, text)
    task = get_task("my-line")
    assert (task.name, task.title) == ("my-line", "my-line")
    assert (task.action_repeat, task.episode_length, task.episodic) == (2, 10, True)
    assert (task.env_steps, task.eval_every, task.metric) == (4_000, 500, "success")
    assert task.score_range == (-50, 100)
    assert "max_episode_steps=40" in gymnasium_tasks.recorded(task)["environment"]
    env = make_env(task, seed=0)
    env.reset(seed=0)
    truncated = [env.step(np.zeros(1))[3] for _ in range(10)]
    assert truncated == [False] * 9 + [True]


def test_a_range_normalizes_returns(tmp_path, monkeypatch):
    text = f'[my-line]\nid = "{OWN}Line-v0"\nscore_range = [-50.0, 150.0]\nepisode_length = 9'
    table(tmp_path, monkeypatch, text)
    task = get_task("my-line")
    assert [task.normalized_score(r, 0.0) for r in (-50, 50, 150)] == [0, 50, 100]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nname = 'x'", "a: unknown field 'name'"),
        ("[a]", "a: has no id; add the id"),
        ("[a]\nid = 3", "a: id=3 must be a string"),
        ("[a]\nid = 'x'\naction_repeat = 0", "action_repeat=0 must be a positive integer"),
        ("[a]\nid = 'x'\nscore_range = [2, 1]", "must be a list of two increasing, finite numbers"),
        ("[a]\nid = 'x'\nscore_range = [0, inf]", "score_range=[0, inf] must be a list of two"),
        ("a = " + 9999 * "[", "is not TOML"),
        ("[a]\nid = 'x'\nmetric = 'score'", "metric=score must be return or success"),
        ("[walker-walk]\nid = 'x'", "walker-walk: a task has this name; choose another"),
        ("[custom]\nid = 'x'", "custom: a suite has this name; choose another"),
        ("['a/b']\nid = 'x'", "names may contain only letters, digits, - and _"),
        ("a = 1", "a: must be a table, [a]"),
        ("[", "is not TOML"),
    ],
)
def test_invalid_tables_are_refused(tmp_path, monkeypatch, text, message):
    table(tmp_path, monkeypatch, text)
    with pytest.raises(UserError) as refused:
        own_tables()
    assert message in str(refused.value)


@pytest.mark.parametrize("value", ["2024-01-01", "[[2024-01-01]]"])
def test_arguments_that_json_has_not_are_refused(tmp_path, monkeypatch, value):
    table(tmp_path, monkeypatch, f"[a]\nid = 'x'\nkwargs = {{ start = {value} }}")
    with pytest.raises(UserError, match=r"x: an argument cannot be written as JSON .*date"):
        get_task("a")


@pytest.mark.parametrize("text", [100_000 * "[", '{"a": ' + 5_000 * "9" + "}"])
def test_arguments_that_python_cannot_read_are_refused(text):
    with pytest.raises(UserError, match="must be a JSON object"):
        with_arguments("gym:Hopper-v5", text)
    assert gymnasium_tasks.arguments_of(f"a={text}") == {"a": text}


def test_a_missing_file_is_named(monkeypatch):
    monkeypatch.setenv(VARIABLE, "nowhere.toml")
    with pytest.raises(UserError, match=r"TDMPC2_TASKS=nowhere.toml: cannot be read"):
        get_task("my-line")


REFUSED = {
    "gym:Hoper-v5": "doesn't exist. Did you mean: `Hopper`",
    "gym:Hopper-v99": "Environment version `v99` for environment `Hopper` doesn't exist",
    "gym:nowhere/Hopper-v5": "Namespace nowhere not found",
    "gym:NoSuch-v0": "name the module that registers it, task=my_module:NoSuch-v0",
    "no_module_of_this_name:My-v0": "needs the module no_module_of_this_name",
    "gym:CartPole-v1": "only continuous actions (Box of floats) are supported",
    "gym:Hopper-v5?speed=3": "cannot be made: TypeError",
    f"{OWN}Spaces-v0?kind=discrete": "has actions Discrete(3); only continuous actions",
    f"{OWN}Spaces-v0?kind=infinite": "actions must have finite bounds",
    f"{OWN}Spaces-v0?kind=image": "observes images; only vectors are supported",
    f"{OWN}Spaces-v0?kind=discrete%20obs": "only a Box and a flat Dict of boxes",
    f"{OWN}Broken-v0": "cannot be made: ValueError: no such file (own_envs.py, line",
    f"{OWN}Unlimited-v0": "has no time limit; set max_episode_steps in gym_kwargs",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_learned_is_refused(name):
    with pytest.raises(UserError) as refused:
        get_task(name)
    assert str(refused.value).startswith(f"task '{name}': ")
    assert REFUSED[name] in str(refused.value)
    assert "\n" not in str(refused.value)


FAULTS = {
    "raises": r"raised ZeroDivisionError: one\nline (own_envs.py, line",
    "nan": "returned NaN or Inf in an observation",
    "grows": "returned an observation (2,), not (1,)",
    "reward": "returned the reward nan",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(fault):
    env = make_env(f"{OWN}Faulty-v0?fault={fault}", seed=0)
    env.reset()
    env.step(np.zeros(1))
    env.step(np.zeros(1))
    with pytest.raises(UserError) as refused:
        env.step(np.zeros(1))
    assert FAULTS[fault] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_processes_find_randomness_that_no_seed_controls(capsys):
    facts = gymnasium_tasks.examine(get_task(f"{OWN}Unseeded-v0"))
    assert facts == {"repeatable": False, "score_range": None}
    assert "not repeatable" in capsys.readouterr().err
    assert gymnasium_tasks.examine(get_task(f"{OWN}Line-v0"))["repeatable"]
    assert gymnasium_tasks.examine(get_task("walker-walk")) == {}
    assert gymnasium_tasks.recorded(get_task("walker-walk")) == {}


def test_a_crash_is_one_line():
    task = get_task(f"{OWN}Faulty-v0?fault=dies")
    with pytest.raises(UserError, match="ended with exit code 3"):
        gymnasium_tasks.examine(task)


def test_gymnasium_keeps_its_promises():
    """What the adapter relies on: -1 means no wrapper of the time, and kwargs reach the limit."""
    env = gymnasium.make("Pendulum-v1", max_episode_steps=-1, disable_env_checker=True)
    assert "TimeLimit" not in str(env)
    assert gymnasium.make("Pendulum-v1", max_episode_steps=7).spec.max_episode_steps == 7
