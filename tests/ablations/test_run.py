"""The command that runs ablations: what it launches, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ablations import run
from ablations.specs import ABLATIONS, FIG9
from sweeps import launch
from sweeps.planning.request import Request, parse_request
from tdmpc2.common.system.errors import UserError
from tdmpc2.envs.tasks import get_suite
from tests.datasets.helpers import episode, make_dataset

ROOT = Path(run.__file__).parents[1]
EASY = ("--tasks", "walker-walk")


def launched(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Request:
    """What the launcher is asked for."""
    seen: list[Request] = []

    def parse(arguments: list[str], advice: str) -> int:
        seen.append(parse_request(arguments))
        return launch.ASKS_FIRST

    monkeypatch.setattr(launch, "main", parse)
    assert run.main(arguments) == launch.ASKS_FIRST
    return seen[0]


def variants(request: Request) -> dict[str, dict[str, object]]:
    return {run.spec.variant: dict(run.spec.overrides) for run in request.planned}


def test_one_ablation_and_the_default_on_the_papers_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = launched(monkeypatch, "assets=official,rebuilt,standin,unknown", "--no-simnorm")
    assert variants(request) == {"default": {}, "no-simnorm": {"latent_norm": "none"}}
    assert len(request.planned) == 2 * 3 * 3
    assert {run.spec.task for run in request.planned} == {"dog-run", "humanoid-walk", "pick-ycb"}
    assert {run.spec.budget for run in request.planned} == {14_000_000}
    assert {run.spec.method for run in request.planned} == {"tdmpc2"}


def test_flags_combine_or_stand_each_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--no-simnorm", "--num-q", "2", *EASY, "--seeds", "1,4", "--env-steps", "1e5")
    request = launched(monkeypatch, *arguments)
    both = {"latent_norm": "none", "num_q": 2}
    assert variants(request) == {"default": {}, "no-simnorm+num-q-2": both}
    assert [(r.spec.seed, r.spec.budget) for r in request.planned[:2]] == [
        (1, 100_000),
        (4, 100_000),
    ]
    request = launched(monkeypatch, *arguments, "--num-q=10", "--each")
    assert list(variants(request)) == ["default", "no-simnorm", "num-q-2", "num-q-10"]


def test_all_of_figure_9(monkeypatch: pytest.MonkeyPatch) -> None:
    request = launched(monkeypatch, "--all", *EASY)
    ours = [one.variant for one in ABLATIONS if one.figure == FIG9]
    assert list(variants(request)) == ["default", *ours]
    assert len(ours) == 11


def test_sizes_and_settings_are_shared_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("batch_size=128", "--no-simnorm", "--model-size", "1", "max_parallel=3", *EASY)
    request = launched(monkeypatch, *arguments)
    shared = {"batch_size": 128, "model_size": "1"}
    base = "batch_size-128+model_size-1"
    assert variants(request) == {
        base: shared,
        f"{base}+no-simnorm": {**shared, "latent_norm": "none"},
    }
    assert request.sweep.max_parallel == 3


def test_quick_is_the_smoke_agent_on_the_smoke_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    request = launched(monkeypatch, "--quick", "--num-q", "1", "--yes")
    assert list(variants(request)) == ["quick", "quick+num-q-1"]
    assert {run.spec.task for run in request.planned} == {"walker-walk", "cartpole-swingup"}
    assert {run.spec.budget for run in request.planned} == {20_000}
    assert dict(request.planned[0].spec.overrides)["model_size"] == "smoke"
    assert request.sweep.yes
    smoke = parse_request(["suite=smoke", "methods=tdmpc2", "seeds=3"])
    assert {r.spec.identity for r in smoke.planned} < {r.spec.identity for r in request.planned}


def test_switches_of_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    request = launched(monkeypatch, "--unseeded-resets", "--seeds", "1")
    assert len(request.planned) == 2 * 50
    assert request.planned[-1].spec.task_switches == (("seeded_resets", False),)


def test_ablations_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[wide]\nsettings = { mlp_dim = 1024 }\ntasks = ['cup-catch']\n")
    request = launched(monkeypatch, "--spec", str(path))
    assert variants(request) == {"default": {}, "wide": {"mlp_dim": 1024}}
    assert {run.spec.task for run in request.planned} == {"cup-catch"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name an ablation, such as --no-simnorm"),
        (("--no-simnom",), "unknown flag --no-simnom (did you mean '--no-simnorm'?)"),
        (("--num-q", "2", "--num-q", "5"), "--num-q is given as 2 and as 5"),
        (("--num-q", "2", "--num-q", "2", "--each"), "--num-q 2 is given twice"),
        (("--num-q", "5"), "--num-q 5: changes nothing, default has num_q=5 already"),
        (("--quick", "--no-simnorm", "--num-q", "2"), "num-q 2: changes nothing"),
        (("--num-q", "7"), "--num-q 7: no such ablation (there are 1, 2, 10)"),
        (("--num-q",), "expected one argument"),
        (("--quick", "--num-q", "2"), "num-q 2: changes nothing, quick has num_q=2 already"),
        (("--no-simnorm", "latent_norm=none"), "no-simnorm: changes nothing"),
        (("--no-simnorm", "--latent-layernorm"), "contradict each other"),
        (("--no-task-embedding-norm",), "changes nothing in agents of a single task"),
        (("--no-simnorm", "--unseeded-resets", "--each"), "are about different tasks"),
        (("--unseeded-resets", "--quick"), "has tasks of its own"),
        (("--stop-at-success", *EASY), "has no effect in walker-walk"),
        (("--no-simnorm", "--tasks", "walk"), "unknown task 'walk'"),
        (("--no-simnorm", "--model-size", "4"), "model_size=4: unknown value"),
        (("--no-simnorm", "--env-steps", "few", *EASY), "env_steps=few"),
        (("--no-simnorm", "nun_q=2", *EASY), "unknown key 'nun_q' (did you mean 'num_q'?)"),
        (("--no-simnorm", "many", *EASY), "'many' is not of the form key=value"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as refused:
        run.main(arguments)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def mt30(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of the thirty tasks, an episode each."""
    folder = tmp_path_factory.mktemp("mt30") / "data"
    make_dataset(folder, {task.name: [episode(task.name, 0, 5)] for task in get_suite("mt30")})
    return folder


def test_agents_of_many_tasks(monkeypatch: pytest.MonkeyPatch, mt30: Path) -> None:
    arguments = ("--multitask", "mt30", f"data={mt30}", "--num-updates", "500", "--seeds", "1")
    flags = ("--no-task-embedding-norm", "--no-simnorm", "--each", "model_size=19")
    request = launched(monkeypatch, *flags, *arguments)
    base = {"model_size": "19"}
    assert variants(request) == {
        "model_size-19": base,
        "model_size-19+no-simnorm": {**base, "latent_norm": "none"},
        "model_size-19+no-task-embedding-norm": {**base, "normalize_task_embedding": False},
    }
    for planned in request.planned:
        spec = planned.spec
        assert (spec.task, len(spec.tasks)) == ("mt30", 30)
        assert (spec.budget, spec.budget_unit) == (500, "num_updates")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--no-simnorm", "--multitask", "mt30"), "data=DIR is missing"),
        (("--no-simnorm", "--multitask", "mt30", "data=x", "--quick"), "--quick and --multitask"),
        (("--no-simnorm", "--multitask", "mt30", "data=x", "--env-steps", "5"), "--env-steps and"),
        (("--no-simnorm", "--multitask", "mt30", "data=x", *EASY), "--tasks and --multitask"),
        (("--no-simnorm", "--num-updates", "5", *EASY), "is the budget with --multitask"),
        (("--prioritized-replay", "--multitask", "mt30", "data=x"), "has no meaning where agents"),
        (("--unseeded-resets", "--multitask", "mt30", "data=x"), "has no meaning where agents"),
        (("--no-simnorm", "--multitask", "mt30", "data=nowhere"), "nowhere"),
    ],
)
def test_bad_input_of_many_tasks(arguments: tuple[str, ...], message: str) -> None:
    test_bad_input_is_one_line(arguments, message)


def test_days_of_work_ask_for_yes_and_name_quick(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--no-simnorm", *EASY, "--cluster", "local", f"runs={tmp_path / 'runs'}")
    assert run.main(arguments) == launch.ASKS_FIRST
    printed = capsys.readouterr().out
    assert "on one core" in printed
    assert "--yes" in printed
    assert "--quick" in printed
    assert not (tmp_path / "runs").exists()


def test_list_and_help_from_anywhere(tmp_path: Path) -> None:
    script = str(ROOT / "ablations" / "run.py")
    for flag in ("--list", "--help"):
        done = subprocess.run(
            [sys.executable, script, flag], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        for one in ABLATIONS:
            assert f"--{one.name.partition(' ')[0]}" in done.stdout
    assert list(tmp_path.iterdir()) == []
