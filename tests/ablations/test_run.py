"""The command that runs ablations: the runs that it launches, and rejected input."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import run
from ablations.command_line import flag_values
from ablations.specs import ABLATIONS, FIG9
from sweeps import launch
from sweeps.execution import launching
from sweeps.planning.request import SweepRequest
from tdmpc2.common.system import cli
from tdmpc2.common.system.errors import UserError
from tdmpc2.config import TDMPC2Config
from tdmpc2.envs.tasks import get_suite
from tests.datasets.helpers import episode, make_dataset

ROOT = Path(run.__file__).parents[1]
EASY = ("--tasks", "walker-walk")


def launched(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> SweepRequest:
    """Run the command, and return the request that it passes to the launcher."""
    seen: list[SweepRequest] = []

    def take(request: SweepRequest, advice: str) -> int:
        seen.append(request)
        return launch.ASKS_FIRST

    monkeypatch.setattr(launching, "launch", take)
    assert run.main(arguments) == launch.ASKS_FIRST
    return seen[0]


def variants(request: SweepRequest) -> dict[str, dict[str, object]]:
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
    assert ours


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
    for same in ("batch_size=256", "num_q=2 --model-size=1", "lr=3e-4 --model-size=5"):
        request = launched(monkeypatch, "--no-simnorm", *same.split(), *EASY)
        base = "model_size-1" if "=1" in same else "default"
        assert list(variants(request)) == [base, f"{base}+no-simnorm".removeprefix("default+")]


@pytest.mark.parametrize("flag", list(flag_values()))
def test_a_flag_of_an_ablation_and_a_setting_of_its_name(
    flag: str, monkeypatch: pytest.MonkeyPatch, mt30: Path
) -> None:
    """The flag always is the ablation, in every spelling; `key=value` always sets all agents."""
    values = flag_values()[flag] or [""]
    ablation = next(one for one in ABLATIONS if one.name == f"{flag} {values[0]}".strip())
    several = ("--multitask", "mt30", f"data={mt30}") if ablation.multitask else ()
    for spelled in (f"--{flag}", f"--{flag.replace('-', '_')}"):
        chosen = [spelled, values[0]] if values[0] else [spelled]
        request = launched(monkeypatch, "seeds=1", *several, *chosen)
        assert request.variants == (("default", {}), (ablation.variant, ablation.settings))
    key = flag.replace("-", "_")
    if key in cli.schema_of(TDMPC2Config):
        value = values[0] or str(ablation.settings[key]).lower()
        request = launched(monkeypatch, "seeds=1", *several, "--no-simnorm", f"{key}={value}")
        assert request.settings[key] == ablation.settings[key]
        assert [name for name, _ in request.variants] == [
            f"{key}-{value}",
            f"{key}-{value}+no-simnorm",
        ]


def test_options_and_settings_have_one_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dashes or none, as for every other command; an ablation overrides a shared setting."""
    forms = (
        ("--no-simnorm", "--seeds", "2", "--tasks=cup-catch", "--batch-size", "128", "--yes"),
        ("--no-simnorm", "seeds=2", "tasks=cup-catch", "batch_size=128", "yes=true"),
    )
    first, second = (launched(monkeypatch, *form) for form in forms)
    assert first == second
    assert first.settings == {"batch_size": 128}
    request = launched(monkeypatch, "--num-q", "2", "num_q=10", *EASY)
    assert variants(request) == {"num_q-10": {"num_q": 10}, "num_q-10+num-q-2": {"num_q": 2}}
    assert variants(launched(monkeypatch, "--no-simnorm", "lr=1e-4", *EASY)) == {
        "lr-1e-4": {"lr": 1e-4},
        "lr-1e-4+no-simnorm": {"lr": 1e-4, "latent_norm": "none"},
    }


def test_quick_is_the_smoke_agent_on_the_smoke_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    request = launched(monkeypatch, "--quick", "--num-q", "1", "--yes")
    assert list(variants(request)) == ["quick", "quick+num-q-1"]
    assert {run.spec.task for run in request.planned} == {"walker-walk", "cartpole-swingup"}
    assert {run.spec.budget for run in request.planned} == {20_000}
    assert dict(request.planned[0].spec.overrides)["model_size"] == "smoke"
    assert request.sweep.yes
    smoke = SweepRequest.from_arguments(["suite=smoke", "methods=tdmpc2", "seeds=3"])
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
        ((), "no ablation given; add one, such as --no-simnorm"),
        (("--no-simnom",), "unknown flag --no-simnom (did you mean '--no-simnorm'?)"),
        (("--num-q", "2", "--num-q", "5"), "--num-q is given as 2 and as 5"),
        (("--num-q", "2", "--num-q", "2", "--each"), "--num-q 2 is given twice"),
        (("--num-q", "1", "--num-q", "2", "--num-q", "2"), "--num-q 2 is given twice"),
        (("--num-q", "5"), "--num-q 5: changes nothing; 'default' already has num_q=5"),
        (("--quick", "--no-simnorm", "--num-q", "2"), "num-q 2: changes nothing"),
        (("--num-q", "7"), "--num-q 7: no such ablation (valid: 1, 2, 10)"),
        (("--no-simnorm", "--looks", "2,3"), "--looks 2,3: only valid with --until-decided"),
        (("--num-q",), "--num-q: a value is needed (1, 2, 10)"),
        (("--num-q", "--no-simnorm"), "--num-q: a value is needed (1, 2, 10)"),
        (("--num-q", "2", "num_q=2"), "num-q 2: changes nothing; 'num_q-2' already has num_q=2"),
        (("--momentum", "momentum=0.1"), "momentum: changes nothing; 'momentum-0.1' already has"),
        (
            ("--momentum=0.2",),
            "--momentum takes no value; momentum=0.2 is a setting of the default",
        ),
        (("--momentum", "0.2"), "'0.2' is not of the form key=value"),
        (("--unseeded-resets", "seeded_resets=false"), "unseeded-resets: changes nothing"),
        (("--no-simnorm", "methods=sac", *EASY), "unknown key 'methods'"),
        (("--no-simnorm", "data=x", *EASY), "--data: only valid with --multitask"),
        (("--quick", "--num-q", "2"), "num-q 2: changes nothing; 'quick' already has num_q=2"),
        (("--no-simnorm", "latent_norm=none"), "no-simnorm: changes nothing"),
        (("--no-norms", "latent_norm=none"), "no-norms: changes only a part of its settings"),
        (("--entropy-target", "entropy_form=exact"), "already has entropy_form=exact. Define"),
        (("--no-simnorm", "--latent-layernorm"), "contradict each other"),
        (("--no-task-embedding-norm",), "changes nothing in single-task agents"),
        (("--no-simnorm", "--unseeded-resets", "--each"), "have different default tasks"),
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("latent_norm = 'none'", "no-simnorm and mine have the same settings; remove one"),
        ("latent_dim = 128, num_q = 5", "mine: changes only a part of its settings; 'default'"),
        ("normalize_task_embedding = false", "mine: changes nothing in single-task agents"),
    ],
)
def test_ablations_that_a_report_could_not_find(
    tmp_path: Path, settings: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"[mine]\nsettings = {{ {settings} }}\n")
    with pytest.raises(UserError, match=re.escape(message)):
        run.main(["--no-simnorm", "--spec", str(path), *EASY])


@pytest.fixture(scope="module")
def mt30(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a dataset of the thirty tasks with one episode each."""
    folder = tmp_path_factory.mktemp("mt30") / "data"
    make_dataset(folder, {task.name: [episode(task.name, 0, 5)] for task in get_suite("mt30")})
    return folder


def test_agents_of_many_tasks(
    monkeypatch: pytest.MonkeyPatch, mt30: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--multitask", "mt30", f"data={mt30}", "--num-updates", "500", "--seeds", "1")
    flags = ("--no-task-embedding-norm", "--no-simnorm", "--each")
    base = {"model_size": "19"}
    for same in ((), ("model_size=19",), ("--model-size", "19")):  # the default size
        request = launched(monkeypatch, *flags, *arguments, *same)
        assert "Power: unknown, as no spread over seeds of multi-task" in capsys.readouterr().out
        assert variants(request) == {
            "default": base,
            "no-simnorm": {**base, "latent_norm": "none"},
            "no-task-embedding-norm": {**base, "normalize_task_embedding": False},
        }
    for planned in request.planned:
        spec = planned.spec
        assert (spec.task, len(spec.tasks)) == ("mt30", 30)
        assert (spec.budget, spec.budget_unit) == (500, "num_updates")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--no-simnorm", "--multitask", "mt30"), "data=DIR is missing"),
        (("--no-simnorm", "--multitask", "mt30", "data=none"), "data=DIR is missing"),
        (("--no-simnorm", "--multitask", "mt30", "data=x", "--quick"), "--quick and --multitask"),
        (("--no-simnorm", "--multitask", "mt30", "data=x", "--env-steps", "5"), "--env-steps and"),
        (("--no-simnorm", "--multitask", "mt30", "data=x", *EASY), "--tasks and --multitask"),
        (("--no-simnorm", "--num-updates", "5", *EASY), "only valid with --multitask"),
        (("--prioritized-replay", "--multitask", "mt30", "data=x"), "does not apply to training"),
        (("--unseeded-resets", "--multitask", "mt30", "data=x"), "does not apply to training"),
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


def test_list_and_help_from_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, str(ROOT / "ablations" / "run.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert run.main(["--list"]) == 0
    for printed in (done.stdout, capsys.readouterr().out):
        for one in ABLATIONS:
            assert f"--{one.name.partition(' ')[0]}" in printed
