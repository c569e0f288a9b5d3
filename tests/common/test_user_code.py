"""Code of users: faults in its import are one line, and others have a place in it."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path

import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.plugins import Table
from tdmpc2.common.system.user_code import described, load_module, load_object, place_in_user_code

CODE = {
    "own_good": "class Outer:\n    class Inner:\n        pass\n",
    "own_exit": "raise SystemExit(7)\n",
    "own_needs": "import no_such_module\n",
    "own_syntax": "x = 1\ndef f(:\n",
    "own_name": "x = 1\ny = undefined\n",
}
REFUSED = {
    "no_such_module:A": r"X: cannot be imported \(No module named 'no_such_module'\); install it",
    "own_needs:A": r"X: cannot be imported \(No module named 'no_such_module'\); install it",
    "own_exit:A": r"X: ends the process when it is imported \(exit code 7\)",
    "own_good:Oter": r"X: own_good has no 'Oter' \(did you mean 'Outer'\?\)",
    "own_good:": "X: own_good has no ''",
    "own_good:Outer.Iner": r"X: own_good has no 'Outer.Iner' \(did you mean 'Inner'\?\)",
    ":A": "X: '' is no name of a module",
    ".own_good:A": "X: '.own_good' is no name of a module",
    "own good:A": "X: 'own good' is no name of a module",
    "own_good.:A": "X: 'own_good.' is no name of a module",
}


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in CODE.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)


def test_objects_are_found() -> None:
    assert load_object("X", "own_good:Outer.Inner").__name__ == "Inner"
    assert load_module("X", "own_good").__name__ == "own_good"


@pytest.mark.parametrize("target", REFUSED)
def test_what_cannot_be_imported_is_refused(target: str) -> None:
    with pytest.raises(UserError, match=REFUSED[target]):
        load_object("X", target)


@pytest.mark.parametrize("target", ["own_syntax:A", "own_name:A"])
def test_a_fault_in_the_code_has_its_place(target: str) -> None:
    place = f"{target.partition(':')[0]}.py, line 2"
    with pytest.raises((SyntaxError, NameError)) as raised:
        load_object("X", target)
    assert place_in_user_code(raised.value) == place
    assert described(raised.value).endswith(f"({place})")
    assert described(raised.value).count(place) == 1


def test_an_installed_package_of_the_user_has_a_place_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is that of libraries, whose errors may come from this project."""
    folder = tmp_path / "site-packages"
    for name in ("own_plugin", "own_library"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("def half(x):\n    return x / 0\n")
    monkeypatch.syspath_prepend(folder)
    library = importlib.import_module("own_library")
    plugin = load_module("X", "own_plugin")
    for module, place in ((plugin, "own_plugin/__init__.py, line 2"), (library, None)):
        with pytest.raises(ZeroDivisionError) as raised:
            Table({}, partial(module.half, 1))["x"]
        assert place_in_user_code(raised.value) == place


def test_a_fault_of_this_project_has_none() -> None:
    with pytest.raises(AttributeError) as raised:
        load_module("X", None)  # type: ignore[arg-type]
    assert place_in_user_code(raised.value) is None
    assert "(user_code.py, line " in described(raised.value)


def test_an_error_that_was_never_raised_has_no_place() -> None:
    assert described(ValueError("a fault.")) == "ValueError: a fault"
    assert place_in_user_code(ValueError("a fault")) is None
