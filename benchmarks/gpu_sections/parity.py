"""Section `parity`: golden arrays of the official code on this device; compiled equals eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gpu_sections.bench import make_filled_agent, observation
from gpu_sections.report import Report, Settings
from tdmpc2 import acceleration
from tdmpc2.agent import TDMPC2
from tdmpc2.common.numerics.recorded_steps import WARM_CALLS
from tdmpc2.planner import estimate_value, plan
from tests.golden import FILES, Golden
from tests.golden_baselines import READERS, errors_of_updates

# Largest absolute errors that pass. The bounds of reduced precisions only detect grossly wrong
# results.
BOUNDS = {
    "fp32": {"networks": 1e-4, "values": 1e-3, "plans": 1e-3, "losses": 1e-3, "weights": 2e-5},
    "tf32": {"networks": 0.1, "values": 1.0, "plans": 2.0, "losses": 0.2, "weights": 5e-3},
    "bf16": {"networks": 0.5, "values": 5.0, "plans": 2.0, "losses": 1.0, "weights": 5e-3},
}
# Bounds of complete updates of the baselines, for relative and absolute errors.
BASELINE_BOUNDS = {"fp32": 1e-4, "tf32": 1.0}
# Largest difference of fast code from eager code. It is a third of what Adam moves a weight in one
# update, so a step with other noise, another batch or overwritten memory exceeds it.
FAST_BOUND = 1e-4
REPLAYS = 3
MATMUL = {"fp32": "highest", "tf32": "high", "bf16": "highest"}


def run(report: Report, settings: Settings) -> None:
    """Check all methods in all their precisions, then compiled and recorded code against eager."""
    precisions = ["fp32", "tf32", "bf16"] if settings.on_gpu else ["fp32", "bf16"]
    files = FILES[:1] if settings.small else FILES
    for precision in precisions:
        torch.set_float32_matmul_precision(MATMUL[precision])
        worst: dict[str, float] = {}
        for name in files:
            for what, error in errors_of(Golden(name, settings.device), precision).items():
                worst[what] = max(worst.get(what, 0.0), error)
        for what, error in worst.items():
            note = f"TD-MPC2, {len(files)} golden files, largest absolute error"
            bound = BOUNDS[precision][what]
            report.add(f"{precision}: {what}", error, at_most=bound, note=note)
        for method in READERS if precision in BASELINE_BOUNDS else ():
            worst_error, where = baseline_error(method, settings)
            bound = BASELINE_BOUNDS[precision]
            note = f"whole updates; largest in {where}"
            report.add(f"{precision}: {method}", worst_error, at_most=bound, note=note)
    torch.set_float32_matmul_precision("highest")
    for what, error in compiled_against_eager(settings).items():
        report.add(f"compiled functions against eager: {what}", error, at_most=FAST_BOUND)
    if settings.on_gpu:
        note = f"each step is executed {WARM_CALLS} times, recorded, and replayed {REPLAYS} times"
        for what, error in recorded_against_eager(settings).items():
            name = f"recorded steps against eager: {what}"
            report.add(name, error, at_most=FAST_BOUND, note=note)


def errors_of(golden: Golden, precision: Any) -> dict[str, float]:
    """Return the largest absolute errors of networks, values, plans, losses and weights."""
    kind: Literal["fp32", "bf16"] = "bf16" if precision == "bf16" else "fp32"
    agent = golden.agent(kind)
    errors = {"networks": network_error(golden, agent), "values": value_error(golden, agent)}
    cases = [f"plan/t0={t0},eval={ev}" for t0 in (0, 1) for ev in (0, 1)]
    # Elites are chosen by rank: in a reduced precision, two close values may swap ranks.
    errors["plans"] = max(plan_error(golden, agent, case) for case in cases)
    errors |= update_errors(golden, golden.agent(kind))
    return errors


def baseline_error(method: str, settings: Settings) -> tuple[float, str]:
    """Return the largest error of a baseline's recorded updates, and the name of that quantity."""
    reader: Any = READERS[method]  # a concrete class
    golden = reader(device=settings.device)
    errors = errors_of_updates(golden, golden.agent())
    where = max(errors, key=lambda name: errors[name])
    return errors[where], where


@torch.no_grad()
def network_error(golden: Golden, agent: TDMPC2) -> float:
    """Return the largest error of all network outputs on the recorded batch."""
    model, context = agent.model, agent.model.context(golden.task())
    z, a = golden("component/latent")[0], golden("in/action")[0]
    sample = model.pi(z, golden("component/pi_noise"), context)
    pairs = [
        (model.encode(golden("in/obs"), context), "latent"),
        (model.next(z, a, context), "next_latent"),
        (model.reward(z, a, context), "reward_logits"),
        (model.q(z, a, context), "q_logits"),
        (model.q(z, a, context, target=True), "target_q_logits"),
        (sample.action, "pi_action"),
        (sample.log_std, "pi_log_std"),
    ]
    return max(error(ours, golden(f"component/{name}")) for ours, name in pairs)


@torch.no_grad()
def value_error(golden: Golden, agent: TDMPC2) -> float:
    """Return the error of the planner's value of fixed action sequences."""
    model, task = agent.model, planned_task(golden)
    context = model.context(task)
    latent = model.encode(golden("plan/obs"), context)
    value = estimate_value(
        model,
        latent[:, None].expand(-1, golden.raw["num_samples"], -1),
        golden("value/actions")[:, None],
        context.over_samples(),
        agent.discount(task, 1)[:, None],
        golden("value/terminal_policy_noise")[None],
        golden("value/q_indices").long(),
    )
    return error(value, golden("value/value"))


def plan_error(golden: Golden, agent: TDMPC2, case: str) -> float:
    """Return the largest error of the mean and the action of a complete planning call.

    Args:
        golden: the recorded arrays.
        agent: an agent with the recorded weights.
        case: prefix of the recorded planning call.
    """
    result = planned(golden, agent, case, plan)
    return max(
        error(result.action, golden(f"{case}/action")), error(result.mean, golden(f"{case}/mean"))
    )


def planned(golden: Golden, agent: TDMPC2, case: str, function: Callable[..., Any]) -> Any:
    """Execute a planning call with the recorded noise, eager or compiled.

    Args:
        golden: the recorded arrays.
        agent: an agent with the recorded weights.
        case: prefix of the recorded planning call.
        function: `plan`, or its compiled version.
    """
    task = planned_task(golden)
    agent.previous_mean[True] = golden(f"{case}/prev_mean")[:, None].clone()
    first = torch.tensor(["t0=1" in case]).numpy()
    return function(
        agent.config,
        agent.model,
        golden("plan/obs"),
        agent.model.context(task),
        agent.discount(task, 1),
        agent.warm_start(first, explore=True),
        golden.plan_noise(case),
        min_std=agent.min_std(),
    )


def update_errors(golden: Golden, agent: TDMPC2) -> dict[str, float]:
    """Return the largest errors of losses and weights after a complete gradient step."""
    metrics, _ = agent.update_on(golden.batch(), golden.update_noise("update1"))
    names = [name for name in metrics if golden.has(f"update1/info/{name}")]
    losses = max(error(metrics[name], golden(f"update1/info/{name}").float()) for name in names)
    weights, recorded = agent.model.state_dict(), golden.weights("update1/state_dict/")
    return {"losses": losses, "weights": max(error(weights[k], x) for k, x in recorded.items())}


def compiled_against_eager(settings: Settings) -> dict[str, float]:
    """Return the largest differences of a plan, and of the weights after two updates.

    Compares the compiled functions one by one, with recorded noise. The CUDA graphs of whole steps
    are not used; see `recorded_against_eager`.

    Raises:
        RuntimeError: the agent could not be compiled.
    """
    golden = Golden(FILES[0], settings.device)
    eager, compiled = golden.agent(), golden.agent()
    compiler = acceleration.install(compiled)
    case = "plan/t0=0,eval=0"
    eager_plan = planned(golden, eager, case, plan)

    def compiled_plan(*args: Any, **kwargs: Any) -> Any:
        f = compiled.functions
        return f.plan(*args, **kwargs, preparation=f.prepare, iteration=f.iterate)

    differences = {}
    for place in ("first call", "second call"):
        result = planned(golden, compiled, case, compiled_plan)
        differences[f"plan, {place}"] = error(result.mean, eager_plan.mean)
    for place in ("first call", "second call"):
        for agent in (eager, compiled):
            agent.update_on(golden.batch(), golden.update_noise("update1"))
        eager_weights = eager.model.state_dict()
        pairs = [(x, eager_weights[name]) for name, x in compiled.model.state_dict().items()]
        differences[f"weights, {place}"] = max(error(x, y) for x, y in pairs)
    if not compiler.enabled:
        raise RuntimeError("compilation failed; see the warning above")
    return differences


def recorded_against_eager(settings: Settings) -> dict[str, float]:
    """Return the largest differences of plans, and of the weights after each update.

    Two agents with the same seed act and learn in turn. The steps of one are compiled, and on a GPU
    recorded as CUDA graphs and replayed. This covers what a recording may do wrong: noise that
    differs from that of eager steps, arguments that are not copied, batches that are not drawn
    anew, and memory that a graph has overwritten.

    All samples are elites, and the means of plans are compared, not the actions: rounding decides
    which of two samples with close values is an elite, and which elite is executed.

    Raises:
        RuntimeError: the agent could not be compiled.
    """
    pairs = [make_filled_agent(settings, num_samples=512, num_elites=512) for _ in range(2)]
    agents = [agent for agent, _ in pairs]
    compiler = acceleration.install(agents[1])
    worst = {"plans": 0.0, "weights": 0.0}
    for place in range(WARM_CALLS + REPLAYS):
        obs, first = (1 + place) * observation(), np.array([place == 0])
        for agent, replay in pairs:
            agent.act(obs, first=first, explore=True)
            agent.update(replay)
        eager_mean, mean = (agent.previous_mean[True] for agent in agents)
        worst["plans"] = max(worst["plans"], error(mean, eager_mean))
        eager_weights, weights = (agent.model.state_dict() for agent in agents)
        differences = [error(x, eager_weights[name]) for name, x in weights.items()]
        worst["weights"] = max(worst["weights"], *differences)
    if not compiler.enabled:
        raise RuntimeError("compilation failed; see the warning above")
    return worst


def planned_task(golden: Golden) -> Tensor | None:
    """Return the task of the recorded plans, or None for a single-task model."""
    return golden("plan/task").long() if golden.multitask else None


def error(ours: Tensor, recorded: Tensor) -> float:
    """Return the largest absolute difference; infinite if it is not finite."""
    difference = (ours.float().reshape(recorded.shape) - recorded.float()).abs().max()
    return float(difference) if bool(torch.isfinite(difference)) else float("inf")
