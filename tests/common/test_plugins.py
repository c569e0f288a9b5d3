"""Tables that plugins extend."""

from __future__ import annotations

from pathlib import Path

import pytest

from tdmpc2.common.system.errors import UserError
from tdmpc2.common.system.plugins import VARIABLE, Plugins, Table

PLUGINS = Plugins("tdmpc2_repro.nothing", lambda found: None)
ROWS: Table[int] = Table({"a": 1}, PLUGINS.load)
SEEN: list[dict[str, int]] = []


def test_plugins_are_loaded_before_the_first_read() -> None:
    loads = []
    table: Table[int] = Table({"a": 1}, lambda: loads.append(1))
    table.add("b", 2)
    assert dict(table.registered()) == {"a": 1, "b": 2}
    assert loads == []
    assert table["b"] == 2
    assert loads
    assert (list(table), len(table), "c" in table) == (["a", "b"], 2, False)


def test_a_plugin_may_read_the_table_that_it_extends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read does not load the plugins once more; another load does nothing."""
    code = (
        "from tests.common import test_plugins\ntest_plugins.SEEN.append(dict(test_plugins.ROWS))"
    )
    (tmp_path / "reading_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(VARIABLE, " reading_plugin ,")
    PLUGINS.load()
    PLUGINS.load()
    assert SEEN == [{"a": 1}]


def test_a_failed_load_fails_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the second read would silently lack the plugin."""
    monkeypatch.setenv(VARIABLE, "no_such_module")
    plugins = Plugins("tdmpc2_repro.nothing", lambda found: None)
    for _ in range(2):
        with pytest.raises(UserError, match="TDMPC2_PLUGINS=no_such_module: cannot be imported"):
            plugins.load()
