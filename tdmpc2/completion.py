"""Completion of options and values in shells: `eval "$(python -m tdmpc2.completion bash)"`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from tdmpc2.common.system import cli
from tdmpc2.common.system.config_checks import Kind, Settings
from tdmpc2.common.system.errors import UserError, did_you_mean
from tdmpc2.common.system.paths import project_root
from tdmpc2.envs.tasks import SUITES, TASKS
from tdmpc2.runners.registry import registered_methods

# The shell asks this module for the completions of the line up to the cursor. With none, it
# completes the names of files.
SHELLS = {
    "bash": """\
_tdmpc2() {
    local line=${COMP_LINE:0:COMP_POINT} word
    COMPREPLY=()
    [[ $line == *.py\\ * || $line == *-m\\ *\\ * ]] || return
    mapfile -t COMPREPLY < <("$1" -m tdmpc2.completion "$line" 2>/dev/null)
    # Readline replaces only what follows the "=", which separates words.
    word=${line##*[[:space:]]}
    [[ $word == *=* && $COMP_WORDBREAKS == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _tdmpc2 python python3
""",
    "zsh": """\
_tdmpc2() {
    local -a found
    found=(${(f)"$($words[1] -m tdmpc2.completion "${(j: :)words[1,CURRENT]}" 2>/dev/null)"})
    if (( $#found )); then compadd -S '' -- $found; else _files; fi
}
compdef _tdmpc2 python python3
""",
    "fish": """\
function __tdmpc2
    set -l interpreter (commandline --tokenize --current-process)[1]
    set -l line (commandline --cut-at-cursor --current-process | string collect)
    $interpreter -m tdmpc2.completion $line 2>/dev/null
end
complete --command python --command python3 --arguments '(__tdmpc2)'
""",
}


def names_of(key: str, *, of_dataset: bool = False) -> Iterable[str]:
    """Return the names that the value of an option may be; empty for other options.

    Args:
        key: the option.
        of_dataset: whether one agent learns all tasks from a dataset.
    """
    if key in ("task", "tasks"):
        return (*TASKS, *SUITES) if of_dataset else TASKS
    if key == "suite":
        return SUITES
    return registered_methods() if key in ("method", "methods") else ()


def completions(line: str) -> list[str]:
    """Return the completions of the last word of a command line.

    Args:
        line: the line up to the cursor, beginning with the Python interpreter.
    """
    typed = [*line.split(), *[""] * line[-1:].isspace()]
    module, before = _module_of(typed[1:-1])
    if module is None:
        return []
    try:
        schema = schema_of(module, before)
    except UserError:  # an argument before the cursor is invalid
        return []
    flags: Mapping[str, Sequence[str]] = getattr(module, "flag_values", dict)()
    return _matches(typed[-1], before[-1:], schema, flags)


def schema_of(module: ModuleType, arguments: Sequence[str]) -> Mapping[str, Kind]:
    """Return the options of a command.

    They are those that its function `schema` declares for some arguments, else the fields of the
    settings that its module defines.

    Args:
        module: module of the command.
        arguments: arguments that may decide which others are valid.
    """
    if hasattr(module, "schema"):
        return dict(module.schema(arguments))
    classes = [one for one in vars(module).values() if isinstance(one, type)]
    own = [c for c in classes if issubclass(c, Settings) and c.__module__ == module.__name__]
    return cli.schema_of(*own)


def _module_of(typed: Sequence[str]) -> tuple[ModuleType | None, Sequence[str]]:
    """Return the module of the suite's command that a line begins with, and its other words."""
    root, skipped = project_root(), 2 if typed[:1] == ["-m"] else 1
    if len(typed) < skipped:
        return None, typed
    named = Path(typed[0]).resolve()
    if skipped == 2:
        module = root / typed[1].replace(".", "/")
        named = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
    if not named.is_relative_to(root) or not named.is_file():
        return None, typed
    if "command(main" not in named.read_text(encoding="utf-8"):
        return None, typed
    path = named.relative_to(root).with_suffix("")
    return importlib.import_module(".".join(path.parts)), typed[skipped:]


def _matches(
    word: str,
    previous: Sequence[str],
    schema: Mapping[str, Kind],
    flags: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return the completions of a word.

    Args:
        word: begin of the word.
        previous: the word before it, if there is one.
        schema: options of the command.
        flags: further flags of the command, with the values that they need.
    """
    name, equals, value = word.partition("=")
    prefix = f"{name}=" if equals else ""
    option = name if equals else "".join(previous)
    flag = option.lstrip("-")
    if equals or (option.startswith("--") and "=" not in option):
        kind = schema.get(flag.replace("-", "_"), Kind(str))
        of_dataset = "num_updates" in schema
        named = list(kind.choices or names_of(flag.replace("-", "_"), of_dataset=of_dataset))
        named += ["true", "false"] * (bool(equals) and kind.type is bool)
        values = flags.get(flag) or named
        if values:
            done, comma, last = (value if equals else word).rpartition(",")
            return [f"{prefix}{done}{comma}{v}" for v in values if v.startswith(last)]
    if equals or not word.startswith("-"):
        return [f"{key}=" for key in schema if not equals and key.startswith(word)]
    ends = {key.replace("_", "-"): "" if kind.type is bool else "=" for key, kind in schema.items()}
    known = {**ends, **dict.fromkeys(flags, "")}
    return [f"--{key}{end}" for key, end in known.items() if f"--{key}".startswith(word)]


def usage() -> str:
    """Return the text of `--help`."""
    return "\n".join(
        [
            f"usage: python -m tdmpc2.completion {'|'.join(SHELLS)}",
            '       python -m tdmpc2.completion "LINE"',
            "",
            "Prints a script with which a shell completes the options and values of the commands",
            "of this suite, or the completions of a line. Add the line of your shell to its file:",
            '  bash  ~/.bashrc                    eval "$(python -m tdmpc2.completion bash)"',
            '  zsh   ~/.zshrc, after compinit     eval "$(python -m tdmpc2.completion zsh)"',
            "  fish  ~/.config/fish/config.fish   python -m tdmpc2.completion fish | source",
        ]
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Raises:
        UserError: there is not one argument, or it is neither a shell nor a line.
    """
    if len(arguments) != 1:
        raise UserError(f"one argument is needed: {', '.join(SHELLS)}, or a line (see --help)")
    (what,) = arguments
    if what not in SHELLS and " " not in what:
        raise UserError(f"unknown shell '{what}'{did_you_mean(what, SHELLS)}")
    print(SHELLS[what] if what in SHELLS else "\n".join(completions(what)))
    return 0


if __name__ == "__main__":
    sys.exit(cli.command(main, usage))
