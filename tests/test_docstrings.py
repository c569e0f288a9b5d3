"""Public functions document their arguments and errors, and the prose keeps to the style."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_architecture import FILES, PACKAGES, ROOT, name

MANY = 3  # parameters from which a docstring describes each
# Raised for other code, not for the caller.
INTERNAL = {"SystemExit"}
# Metaphors and inverted phrases that readers had to decode.
PHRASES = (
    *("learnt", "room of", "handed over", "taken back", "leaves out zero", "comes out as"),
    *("the words of", "is told"),
)
IDENTIFIER = re.compile(
    r"(^|_)(pack|packs|packed|packable|words|floors|FLOORS|WORDS)($|_)|(?<![a-z])(Pack|Packed)([A-Z]|$)"
)
# Names of the math library.
FOREIGN = {"cblas_sgemm_pack", "cblas_sgemm_pack_get_size", "kPacked"}
REPLAY = ("replay", "data", "training", "runners")  # where `memory` would mean the replay buffer
PROSE = [
    *FILES,
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
]


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Public functions and methods of a file: label, node and the docstring that describes it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from _functions(path, tree, "")


def _functions(
    path: Path, owner: ast.Module | ast.ClassDef, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef, str]]:
    for node in owner.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _functions(path, node, f"{node.name}.")
        if isinstance(node, ast.FunctionDef):
            constructor = node.name == "__init__" and isinstance(owner, ast.ClassDef)
            if constructor or not node.name.startswith("_"):
                text = ast.get_docstring(owner if constructor else node) or ""
                yield f"{name(path)}:{node.lineno} {prefix}{node.name}", node, text


def parameters(node: ast.FunctionDef) -> list[str]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [arg.arg for arg in every if arg.arg not in ("self", "cls")]


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a function without those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            yield child
            yield from own_nodes(child)


def raised(node: ast.FunctionDef) -> set[str]:
    """Names of the errors that a function raises itself."""
    found = set()
    for child in own_nodes(node):
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            function = child.exc.func
            found.add(function.attr if isinstance(function, ast.Attribute) else function.id)  # type: ignore[attr-defined]
    return found - INTERNAL


def section(text: str, title: str) -> set[str]:
    """Names that a section of a docstring describes."""
    found = re.search(rf"^{title}:\n((?:[ ]{{4}}.*\n?|\n)*)", text, re.MULTILINE)
    lines = found[1].splitlines() if found else []
    heads = [re.match(r" {4}([\w*, /`]+):", line) for line in lines]
    return {part.strip("* `") for head in heads if head for part in re.split(r"[,/]", head[1])}


@pytest.mark.parametrize("package", [*PACKAGES, "benchmarks"])
def test_public_functions_document_arguments_and_errors(package: str) -> None:
    missing = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for label, node, text in functions(path):
            given = parameters(node)
            described = section(text, "Args")
            if len(given) >= MANY and not set(given) <= described:
                missing.append(f"{label}: Args lacks {', '.join(sorted(set(given) - described))}")
            if described - set(given) and not (node.args.vararg or node.args.kwarg):
                missing.append(f"{label}: Args names {', '.join(sorted(described - set(given)))}")
            errors = raised(node)
            if not errors <= section(text, "Raises"):
                missing.append(f"{label}: Raises lacks {', '.join(sorted(errors))}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("phrase", PHRASES)
def test_prose_is_plain(phrase: str) -> None:
    pattern = re.compile(rf"\b{phrase}\b".replace(" ", r"\s+"), re.IGNORECASE)
    found = [
        f"{name(path)}:{text[: match.start()].count(chr(10)) + 1}"
        for path in PROSE
        for text in [path.read_text()]
        for match in pattern.finditer(text)
    ]
    assert not found, "\n".join(found)


def identifiers(path: Path) -> set[str]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


def test_names_are_those_of_the_field() -> None:
    found = [
        f"{name(path)}: {one}"
        for path in [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]
        for one in sorted(identifiers(path) - FOREIGN)
        if IDENTIFIER.search(one)
        or (one == "memory" and not set(REPLAY).isdisjoint(path.relative_to(ROOT).parts))
    ]
    assert not found, "\n".join(found)
