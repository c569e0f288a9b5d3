"""The claims ledger: it is complete, its rendered copies are current, statuses follow records."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ablations.specs import ABLATIONS
from analysis import claims as command
from analysis import reproduce
from analysis.figures.registry import shipped_catalog
from analysis.ledger import findings as status
from analysis.ledger.claims_file import (
    AblationClaim,
    Advantage,
    Agents,
    Checked,
    Finetuning,
    Ledger,
    Scores,
    ledger_path,
    read_ledger,
)
from analysis.ledger.evidence import KINDS, findings_of
from analysis.ledger.findings import MEANINGS, Finding
from analysis.ledger.inputs import Inputs
from analysis.ledger.rendering import page, with_excerpt
from analysis.stats.margins import PAPER_UPDATES
from analysis.stats.selection import Group
from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.paths import recorded_folders
from tests.analysis.multitask_files import write_multitask_run
from tests.analysis.run_files import write_run, write_table
from tests.test_architecture import ROOT

LEDGER = read_ledger(ledger_path())
STEPS = (0, 100_000, 200_000)
PAIR = Group("pair", "Pair", ("walker-walk", "cup-catch"), horizon=200_000)
SCORES = Scores(id="pair", places=(), group="pair", values={"tdmpc2": 71.0})


def numbers_of(place: str) -> list[int]:
    """The figures that a place stands for: `Figures 10 to 17` are eight."""
    found = [int(number) for number in re.findall(r"\d+", place)]
    return [*range(found[0], found[-1] + 1)]


def test_every_figure_table_and_appendix_is_covered() -> None:
    figures = [n for place in LEDGER.places if "Figure" in place for n in numbers_of(place)]
    assert figures == [*range(1, 20)]
    assert [place for place in LEDGER.places if place.startswith("Table")] == ["Table 1"]
    letters = [place[-1] for place in LEDGER.places if place.startswith("Appendix")]
    assert letters == [*"ABCDEFGH"]
    stated = {place for claim in LEDGER.claims for place in claim.places}
    assert stated == set(LEDGER.places)


def test_places_of_the_drawn_figures_are_covered() -> None:
    for spec in shipped_catalog().figures.values():
        for kind, mark in re.findall(r"([Ff]igure|[Aa]ppendix) (\d+|[A-H])\b", spec.title):
            assert f"{kind.capitalize()} {mark}" in LEDGER.places, spec.title


@pytest.mark.parametrize("one", [a for a in ABLATIONS if a.figure and a.expected], ids=str)
def test_every_ablation_of_the_paper_is_covered(one) -> None:
    (claim,) = (c for c in LEDGER.claims if isinstance(c, AblationClaim) and c.flag == one.name)
    assert (claim.expected, claim.statement) == (one.expected, one.claim)
    assert claim.multitask == one.multitask
    assert one.figure[0].upper() + one.figure[1:] in claim.places


def test_claims_on_ablations_are_those_of_the_table() -> None:
    known = {one.name for one in ABLATIONS if one.figure}
    assert {c.flag for c in LEDGER.claims if isinstance(c, AblationClaim)} <= known


def test_named_tests_exist() -> None:
    for claim in LEDGER.claims:
        for test in claim.tests if isinstance(claim, Checked) else ():
            file, _, name = test.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), test


def commands() -> list[str]:
    """The commands of all claims; those of scores get methods."""
    more = {Scores: " methods=tdmpc2", Advantage: " methods=tdmpc2,sac"}
    found = [c.command + more.get(type(c), "") for c in LEDGER.claims if c.command]
    return sorted({" ".join(one.split()) for one in found})


@pytest.mark.parametrize("line", commands())
def test_commands_are_valid(line: str, tmp_path: Path) -> None:
    """With one unknown option more, the command names this option only, and does nothing."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *shlex.split(line)[1:], "no_such_option=1"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no_such_option" in done.stderr


@pytest.fixture(scope="module")
def recorded(published_curves: Path) -> list[Finding]:
    """The findings on the recorded runs."""
    inputs = Inputs.read(recorded_folders(), published_curves, shipped_catalog())
    return findings_of(LEDGER, inputs)


def test_page_and_readme_are_current(recorded: list[Finding]) -> None:
    """If this fails: make claims."""
    assert (ROOT / "docs" / "claims.md").read_text() == page(LEDGER, recorded, released=True)
    readme = (ROOT / "README.md").read_text()
    assert readme == with_excerpt(readme, recorded)


def test_numbers_of_the_ledger_are_those_of_the_released_curves(recorded: list[Finding]) -> None:
    scores = [c for c in LEDGER.claims if isinstance(c, Scores)]
    names = {f"{claim.id}-{method}" for claim in scores for method in claim.values}
    found = {one.id: one.status for one in recorded if one.id in names}
    assert found.keys() == names
    assert status.OPEN not in found.values()


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Released curves of two tasks, with a mean of 71 points at 200,000 env steps."""
    for method, less in (("tdmpc2", 0), ("sac", 400)):
        for task, scores in (("walker-walk", (900, 910, 920)), ("cup-catch", (500, 510, 520))):
            lines = [
                f"{step},{(score - less) * step / 200_000},{seed}"
                for step in STEPS
                for seed, score in enumerate(scores, start=1)
            ]
            path = tmp_path / "paper" / method / f"{task}.csv"
            write_table(path, "step,reward,seed", lines)
    return tmp_path / "paper"


def ours(runs: Path, task: str, scores: tuple[float, ...], *, step: int = 200_000, **facts) -> None:
    for seed, score in enumerate(scores, start=1):
        points = {0: 0.0, step // 2: score / 2, step: score}
        write_run(runs, points, **{"task": task, "seed": seed, "budget": step, **facts})


def inputs_of(runs: Path, published: Path | None) -> Inputs:
    catalog = shipped_catalog()
    runs.mkdir(exist_ok=True)
    groups = {**catalog.groups, "pair": PAIR, "ablation": PAIR}
    return Inputs.read([runs], published, dataclasses.replace(catalog, groups=groups))


def found(claim, inputs: Inputs) -> Finding:
    (finding,) = KINDS[type(claim)](claim, inputs)
    return finding


def test_a_score_is_reproduced_if_reproduce_accepts_runs_of_all_tasks(tmp_path, released) -> None:
    ours(tmp_path / "runs", "walker-walk", (905.0, 915.0, 901.0))
    ours(tmp_path / "runs", "cup-catch", (505.0, 515.0, 507.0))
    finding = found(SCORES, inputs_of(tmp_path / "runs", released))
    assert finding.status == status.REPRODUCED
    runs = "own runs: 2 of 2 tasks, 200,000 of 4,000,000 env steps, 3 seeds"
    assert finding.evidence[0] == f"{runs}; DMControl: reproduced (2 tasks compared)"
    arguments = [f"runs={tmp_path / 'runs'}", f"published={released}"]
    assert reproduce.main([*arguments, "tasks=walker-walk,cup-catch"]) == 0


def test_some_of_the_tasks_are_reproduced_so_far(tmp_path, released) -> None:
    ours(tmp_path / "runs", "walker-walk", (905.0, 915.0, 901.0))
    assert found(SCORES, inputs_of(tmp_path / "runs", released)).status == status.SO_FAR


def test_half_of_the_budget_is_reproduced_so_far(tmp_path, released) -> None:
    for task, scores in (("walker-walk", (450, 455, 460)), ("cup-catch", (250, 255, 260))):
        ours(tmp_path / "runs", task, scores, step=100_000)
    assert found(SCORES, inputs_of(tmp_path / "runs", released)).status == status.SO_FAR


def test_worse_is_not_reproduced(tmp_path, released) -> None:
    ours(tmp_path / "runs", "walker-walk", (905.0, 915.0, 901.0))
    ours(tmp_path / "runs", "cup-catch", (205.0, 215.0, 207.0))
    finding = found(SCORES, inputs_of(tmp_path / "runs", released))
    assert finding.status == status.NOT_REPRODUCED
    assert "DMControl: worse" in finding.evidence[0]


@pytest.mark.parametrize(
    "facts",
    [
        {"variant": "smoke", "model_size": "smoke"},
        {"overrides": {"lr": 0.001}},
        {"method": "sac"},
        {"obs": "rgb"},
    ],
    ids=str,
)
def test_runs_at_other_settings_reproduce_nothing(tmp_path, released, facts) -> None:
    for task, scores in (("walker-walk", (905, 915, 901)), ("cup-catch", (505, 515, 507))):
        ours(tmp_path / "runs", task, scores, **facts)
    assert found(SCORES, inputs_of(tmp_path / "runs", released)).status == status.RECOMPUTED


def test_one_seed_settles_nothing(tmp_path, released) -> None:
    ours(tmp_path / "runs", "walker-walk", (905.0,))
    ours(tmp_path / "runs", "cup-catch", (505.0,))
    finding = found(SCORES, inputs_of(tmp_path / "runs", released))
    assert finding.status == status.RECOMPUTED
    assert "1 seed; DMControl: not enough data" in finding.evidence[0]


def test_without_released_curves_a_score_is_open(tmp_path) -> None:
    ours(tmp_path / "runs", "walker-walk", (905.0, 915.0, 901.0))
    finding = found(SCORES, inputs_of(tmp_path / "runs", None))
    assert finding.status == status.OPEN


def test_a_number_that_the_released_curves_do_not_have_is_open(tmp_path, released) -> None:
    wrong = Scores(id="pair", places=(), group="pair", values={"tdmpc2": 71.2})
    finding = found(wrong, inputs_of(tmp_path / "runs", released))
    assert (finding.status, finding.evidence) == (status.OPEN, ("released curves: 71.0",))


@pytest.mark.parametrize("scores", [(905.0,), (905.0, 905.0, 905.0)])
def test_an_advantage_of_one_seed_or_of_equal_scores_is_open(tmp_path, scores) -> None:
    claim = Advantage(id="best", places=(), group="pair", method="tdmpc2", over=("sac",))
    for task in PAIR.tasks:
        ours(tmp_path / "runs", task, scores)
        ours(tmp_path / "runs", task, tuple(score - 600 for score in scores), method="sac")
    finding = found(claim, inputs_of(tmp_path / "runs", None))
    assert finding.status == status.OPEN
    assert finding.evidence == ("own runs: +60.0 points, without an interval",)


def test_an_advantage(tmp_path, released) -> None:
    claim = Advantage(id="best", places=(), group="pair", method="tdmpc2", over=("sac",))
    finding = found(claim, inputs_of(tmp_path / "runs", released))
    assert finding.status == status.RECOMPUTED
    assert finding.evidence[0].startswith("released curves: +40.0 [")
    other = Advantage(id="best", places=(), group="pair", method="sac", over=("tdmpc2",))
    assert found(other, inputs_of(tmp_path / "runs", released)).status == status.OPEN
    for task in PAIR.tasks:
        ours(tmp_path / "runs", task, (905.0, 915.0, 901.0))
        ours(tmp_path / "runs", task, (305.0, 315.0, 301.0), method="sac")
    inputs = inputs_of(tmp_path / "runs", released)
    assert found(claim, inputs).status == status.SUPPORTED
    assert found(other, inputs).status == status.CONTRADICTED


@pytest.mark.parametrize(
    ("scores", "updates", "expected"),
    [
        ((49.4, 49.5, 49.6), PAPER_UPDATES, status.REPRODUCED),
        ((39.4, 39.5, 39.6), PAPER_UPDATES, status.NOT_REPRODUCED),
        ((49.5,), PAPER_UPDATES, status.QUOTED),
        ((49.4, 49.5, 49.6), 1000, status.QUOTED),
        ((), 0, status.QUOTED),
    ],
)
def test_multitask_agents(tmp_path, scores, updates, expected) -> None:
    for seed, score in enumerate(scores, start=1):
        points = {0: (1.0, 1.0), updates: (score, score)}
        write_multitask_run(
            tmp_path / "runs", points, task_set="mt80", size="5", seed=seed, budget=updates
        )
    claim = Agents(id="agents", places=(), task_set="mt80", sizes=("5",))
    finding = found(claim, inputs_of(tmp_path / "runs", None))
    assert finding.status == expected
    assert finding.statement == "TD-MPC2 with 5M parameters scores 49.5 on mt80"


def test_an_evaluation_by_a_third_party(tmp_path) -> None:
    claim = Agents(id="agents", places=(), task_set="mt80", sizes=("48",))
    finding = found(claim, inputs_of(tmp_path / "runs", None))
    assert (finding.status, finding.evidence) == (status.EVALUATED, ("PWM: 67.79",))


def test_finetuning_is_quoted_and_never_reproduced(tmp_path) -> None:
    claim = Finetuning(id="few", places=(), label="finetuned", variant="finetuned")
    assert found(claim, inputs_of(tmp_path / "runs", None)).status == status.QUOTED
    facts = {"variant": "finetuned", "model_size": "19"}
    ours(tmp_path / "runs", "cup-spin", (470.0, 470.0, 470.0), step=20_000, **facts)
    finding = found(claim, inputs_of(tmp_path / "runs", None))
    assert finding.status == status.QUOTED
    assert finding.evidence[0].startswith("own runs: 1 of 10 tasks, 20,000 of 20,000 env steps")


CLAIM = AblationClaim(id="a", places=(), flag="num-q 2", expected="lower", statement="scores lower")


@pytest.mark.parametrize(
    ("base", "size", "scores", "step", "expected"),
    [
        ("default", "5", (405.0, 415.0, 401.0), 4_000_000, status.SUPPORTED),
        ("default", "5", (405.0, 415.0, 401.0), 200_000, status.SUPPORTED_SO_FAR),
        ("default", "5", (905.0, 915.0, 902.0), 4_000_000, status.CONTRADICTED),
        ("default", "5", (905.0, 915.0, 902.0), 200_000, status.OPEN),
        ("default", "5", (405.0,), 4_000_000, status.OPEN),
        ("default", "1", (405.0, 415.0, 401.0), 4_000_000, status.OPEN),
        ("quick", "smoke", (405.0, 415.0, 401.0), 4_000_000, status.OPEN),
    ],
)
def test_ablations(tmp_path, base, size, scores, step, expected) -> None:
    variant = "num-q-2" if base == "default" else f"{base}+num-q-2"
    for task in PAIR.tasks:
        ours(
            tmp_path / "runs", task, (905.0, 915.0, 901.0), step=step, variant=base, model_size=size
        )
        facts = {"variant": variant, "model_size": size, "overrides": {"num_q": 2}}
        ours(tmp_path / "runs", task, scores, step=step, **facts)
    finding = found(CLAIM, inputs_of(tmp_path / "runs", None))
    assert finding.status == expected
    shown = {"5": "5M", "1": "1M"}.get(size, size)
    said = f"own runs ({base}, model size {shown}): 2 tasks, {step:,} env steps"
    assert said in finding.evidence[0]
    assert "nan" not in finding.evidence[0]
    if len(scores) == 1:
        assert "1 to 3 seeds: -50.2 points, without an interval" in finding.evidence[0]


def test_every_status_has_a_meaning() -> None:
    names = {value for key, value in vars(status).items() if key.isupper() and key != "MEANINGS"}
    assert names == set(MEANINGS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("places = {}", "missing required field `claims`"),
        ("places =", "Invalid value"),
        ("[places]\n[[claims]]\nkind = 'open'", "missing required field `id`"),
        ("[places]\n[[claims]]\nkind = 'other'", "Invalid value 'other'"),
        (
            "[places]\n[[claims]]\nkind = 'open'\nid = 'a'\nplaces = ['Figure 1']\n"
            "statement = 's'\nwhy = 'w'",
            "claim a: unknown place 'Figure 1'",
        ),
        (
            "[places]\n"
            + 2 * "[[claims]]\nkind = 'open'\nid = 'a'\nplaces = []\nstatement = 's'\nwhy = 'w'\n",
            "the claim a occurs twice",
        ),
    ],
)
def test_a_damaged_ledger_is_refused_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "claims.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_ledger(path)
    assert "\n" not in str(caught.value)
    assert isinstance(LEDGER, Ledger)


def test_the_command_writes_a_page_and_a_table(tmp_path: Path, released: Path) -> None:
    ours(tmp_path / "runs", "walker-walk", (905.0, 915.0, 901.0))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- claims: begin -->\n<!-- claims: end -->\nafter\n")
    out = tmp_path / "claims.md"
    arguments = [f"runs={tmp_path / 'runs'}", f"published={released}", f"out={out}"]
    assert command.main([*arguments, f"readme={readme}"]) == 0
    assert "| `dmcontrol-tdmpc2` |" in out.read_text()
    assert "| reproduced so far | 3 |" in readme.read_text()  # on DMControl, and twice on all tasks
    assert readme.read_text().startswith("before\n")
    assert readme.read_text().endswith("\nafter\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs=/nowhere"], "runs=/nowhere does not exist"),
        (["published=/nowhere"], "published=/nowhere does not exist"),
        (["recorded=true", "runs=/tmp"], "exclude each other"),
        (["recorded=true", "readme=/nowhere/README.md", "out=/dev/null"], "readme=/nowhere"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, tmp_path) -> None:
    with pytest.raises(UserError, match=message):
        command.main([one.replace("/dev/null", str(tmp_path / "out.md")) for one in arguments])
