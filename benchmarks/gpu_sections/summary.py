"""The results of all sections as one JSON file and one table, and the outcome in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tdmpc2.common.system.atomic_files import write_json, write_text

GOOD = ("passed", "skipped")
OUTCOMES = (*GOOD, "incomplete")  # each other status counts as not passed


def write_summary(
    out: Path,
    facts: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    keys: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write `acceptance.json` and `acceptance.md`.

    Args:
        out: folder of the results.
        facts: present facts.
        results: results of sections, also of those that ran under other facts.
        keys: present facts of each section, by name.
    """
    write_json(out / "acceptance.json", {"facts": dict(facts), "sections": list(results)})
    tables = "\n\n".join(table_of(result, keys[result["section"]]) for result in results)
    text = f"# Acceptance test\n\n{described(facts)}\n\n{tables}\n"
    write_text(out / "acceptance.md", text)


def described(facts: Mapping[str, Any]) -> str:
    """Return facts as text."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def table_of(result: Mapping[str, Any], key: Mapping[str, Any]) -> str:
    """Format a section's result as a Markdown table, with its own facts where they are others.

    Args:
        result: result of the section.
        key: present facts of the section.
    """
    message = f": {result['message']}" if result.get("message") else ""
    title = f"**{result['section']}**: {result['status']}{message} ({result.get('seconds', 0)} s)"
    own = {name: value for name, value in result["key"].items() if key.get(name) != value}
    lines = [f"{title}, with {described(own)}" if own else title]
    if result["checks"]:
        lines += ["", "| | value | bound | |", "|---|---|---|---|"]
    for check in result["checks"]:
        signs = {"at_most": "≤", "at_least": "≥"}
        bounds = [f"{sign} {check[name]:g}" for name, sign in signs.items() if name in check]
        verdict = {None: "", True: "", False: "**failed** "}[check["ok"]]
        value = check["value"] if isinstance(check["value"], str) else f"{check['value']:.4g}"
        cells = (check["name"], f"{value} {check['unit']}".strip(), " and ".join(bounds))
        lines.append(f"| {' | '.join(cells)} | {verdict}{check['note']} |")
    return "\n".join(lines)


def outcome_of(statuses: Mapping[str, str]) -> str:
    """Return a line with the names of the sections by outcome, e.g. `passed: sync; skipped: train`.

    Args:
        statuses: status of each section.
    """
    groups: dict[str, list[str]] = {name: [] for name in (*OUTCOMES, "not passed")}
    for section, status in statuses.items():
        groups[status if status in OUTCOMES else "not passed"].append(section)
    return "; ".join(f"{name}: {', '.join(group)}" for name, group in groups.items() if group)
