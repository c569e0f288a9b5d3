"""Recorded steps: agents do the same as without, and what cannot be recorded is noticed."""

from __future__ import annotations

import contextlib
import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tdmpc2.agent import TDMPC2
from tdmpc2.common.interfaces import Accelerated
from tdmpc2.common.numerics.recorded_steps import WARM_CALLS, StepRecorder
from tdmpc2.common.training.loop_requests import Act
from tdmpc2.seed_batch import SeedBatch
from tests.helpers import env_spec, filled_replay, tiny_config
from tests.tape import Tape

ROUNDS = WARM_CALLS + 3
CASES: dict[str, dict[str, Any]] = {
    "paper": {},
    "noisy prior": {"policy_prior": "gaussian_noise", "min_std_decisions": 10},
    "prioritized": {"prioritized_replay": True, "dropout_in": "everywhere", "dropout": 0.2},
    "learned entropy": {"entropy_tuning": "target", "entropy_form": "exact"},
}


def record(agent: Accelerated, tapes: list[Tape]) -> StepRecorder:
    """Have an agent's steps recorded on tapes."""
    steps = agent.accelerable().whole_steps
    assert steps is not None

    def make() -> Tape:
        tapes.append(Tape())
        return tapes[-1]

    recorder = StepRecorder(steps.generators, steps.optimizers, make)
    for slot in steps.functions:
        setattr(slot.owner, slot.name, recorder.recorded(getattr(slot.owner, slot.name)))
    return recorder


def make_agent(**overrides: Any) -> TDMPC2:
    return TDMPC2(tiny_config(**overrides), env_spec(), seed=3)


def observation(num: int, round: int) -> np.ndarray:
    return np.random.default_rng(round).normal(size=(num, 5)).astype(np.float32)


def live(agent: TDMPC2) -> list[Any]:
    """Train, plan for training and evaluate; return all that comes out."""
    replay, seen = filled_replay(agent.config, agent.env), []
    for round in range(ROUNDS):
        agent.decisions = round
        for num, explore in ((1, True), (2, False)):
            first = np.full(num, round == 0)
            seen.append(
                torch.from_numpy(agent.act(observation(num, round), first=first, explore=explore))
            )
        seen.append(agent.update(replay))
    return [seen, agent.state_dict(), replay.state_dict()]


def assert_same(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_recorded_agent_equals_the_plain_one(overrides: dict[str, Any]) -> None:
    tapes: list[Tape] = []
    recorded = make_agent(**overrides)
    record(recorded, tapes)
    assert_same(live(recorded), live(make_agent(**overrides)))
    assert len(tapes) == 3  # training, evaluation, update
    assert all(not tape.fresh for tape in tapes)


def test_only_used_generators_are_registered() -> None:
    tapes: list[Tape] = []
    agent = make_agent()
    record(agent, tapes)
    live(agent)
    train, evaluation = agent.train_noise.generator, agent.eval_noise.generator
    assert [list(tape.generators) for tape in tapes] == [[train], [evaluation], [train]]


def test_recorded_seed_batch_equals_the_plain_one() -> None:
    def run(tapes: list[Tape] | None) -> list[Any]:
        agents = [TDMPC2(tiny_config(), env_spec(), seed=seed) for seed in (1, 2)]
        batch = SeedBatch(agents, [True, True])
        if tapes is not None:
            record(batch, tapes)
        buffers, seen = [filled_replay(a.config, a.env, seed=a.decisions) for a in agents], []
        for round in range(ROUNDS):
            request = Act(observation(1, round), np.array([round == 0]), explore=True)
            seen += [torch.from_numpy(action) for action in batch.act([request] * 2)]
            seen.append(batch.update(buffers))
        return [seen, [agent.state_dict() for agent in agents]]

    tapes: list[Tape] = []
    assert_same(run(tapes), run(None))
    assert len(tapes) == 2


def test_loading_a_state_ends_recordings() -> None:
    """The states of an optimizer are replaced then; a recording would change the old ones."""
    tapes: list[Tape] = []
    agent, plain = make_agent(), make_agent()
    record(agent, tapes)
    state = copy.deepcopy(make_agent().state_dict())
    for each in (agent, plain):
        live(each)
        each.load_state_dict(copy.deepcopy(state))
    assert_same(live(agent), live(plain))
    assert len(tapes) == 6


def test_what_reads_values_is_executed_as_before() -> None:
    recorder = StepRecorder((), (), Tape)
    calls = []

    def step(x: Tensor) -> Tensor:
        calls.append(x)
        return x * float(x.sum())

    recorded = recorder.recorded(step)
    x = torch.arange(3.0)
    for _ in range(WARM_CALLS):
        assert_same(recorded(x), 3 * x)
    with pytest.warns(RuntimeWarning, match="could not be recorded as a CUDA graph"):
        assert_same(recorded(x), 3 * x)
    assert not recorder.enabled
    assert_same(recorded(x), 3 * x)
    assert len(calls) == WARM_CALLS + 3


def test_results_are_copies() -> None:
    recorded = StepRecorder((), (), Tape).recorded(lambda x: {"sum": x.sum(), "double": 2 * x})
    results = [recorded(torch.full((2,), float(i))) for i in range(WARM_CALLS + 3)]
    for i, result in enumerate(results):
        assert_same(result, {"sum": torch.tensor(2.0 * i), "double": torch.full((2,), 2.0 * i)})


def test_steps_are_recorded_on_the_gpu_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams and graphs belong to the current GPU, which is another one with `device=cuda:1`."""
    current: list[torch.device] = []

    @contextlib.contextmanager
    def device(own: torch.device) -> Any:
        current.append(own)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    second = torch.device("cuda:1")
    generator = SimpleNamespace(device=second, get_state=lambda: torch.zeros(1))
    recorder = StepRecorder([generator], [])  # type: ignore[list-item]
    assert recorder.recorded(lambda: list(current))() == [second]
    assert current == []
