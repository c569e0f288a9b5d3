"""The ledger as Markdown: the page of the documentation, and the table in the README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.ledger.claims_file import Ledger
from analysis.ledger.findings import MEANINGS, Finding, counts

EXCERPT = "claims"
"""Name of the table in the README."""
INTRODUCTION = """\
Every quantitative claim of the paper, with its status and the command whose runs would settle it.
Statuses follow from records and the released curves. `make claims` writes this page. Scores are
return / 10 or success in percent, averaged over tasks. Differences have 95 % intervals (Welch),
which end at the largest possible difference, 100 points. A percentage behind an interval is its
coverage in simulated studies of these runs, if that is not 92 to 98 %. Reproduced is the verdict of
`reproduce.py`, with the runs of all precisions as one series. The paper shows scores of single-task
agents in figures; their numbers here are those of the released curves."""
NO_CURVES = "The released curves were not given, so that no score was compared with them."


def page(ledger: Ledger, findings: Sequence[Finding], *, released: bool) -> str:
    """Return the page of the documentation.

    Args:
        ledger: the claims.
        findings: the status of each claim.
        released: whether the released curves were given.
    """
    tallies = [(f"**{status}**", n, MEANINGS[status]) for status, n in counts(findings).items()]
    return "\n".join(
        [
            "# Claims of the paper",
            "",
            INTRODUCTION,
            *([] if released else ["", NO_CURVES]),
            "",
            table(("status", "claims", "meaning"), tallies),
            "",
            "## By place in the paper",
            "",
            table(("place", "content", "claims"), _by_place(ledger, findings)),
            "",
            "## All claims",
            "",
            table(
                ("claim", "statement", "place", "status and evidence", "command"), _rows(findings)
            ),
            "",
        ]
    )


def with_excerpt(readme: str, findings: Sequence[Finding]) -> str:
    """Return the README with the present table of statuses.

    Raises:
        ValueError: the README lacks the lines around the table.
    """
    rows = [(status, n) for status, n in counts(findings).items()]
    return with_part(readme, EXCERPT, table(("status", "claims"), rows))


def with_part(page: str, name: str, content: str) -> str:
    """Return a page with new content between the lines that mark a part of it.

    Args:
        page: text of the page.
        name: name of the part, as in `<!-- name: begin -->` and `<!-- name: end -->`.
        content: the new content, without the last line break.

    Raises:
        ValueError: the page lacks one of these lines.
    """
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, begin, rest = page.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"the lines {first} and {last} are missing, between which a table goes")
    return f"{before}{first}\n{content}\n{last}{after}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in row] for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _by_place(ledger: Ledger, findings: Sequence[Finding]) -> Iterable[tuple[str, str, str]]:
    """Yield each place with its content and the number of its claims by status."""
    for place, content in ledger.places.items():
        own = [finding for finding in findings if place in finding.places]
        yield place, content, ", ".join(f"{n} {status}" for status, n in counts(own).items())


def _rows(findings: Sequence[Finding]) -> Iterable[tuple[str, ...]]:
    """Yield the row of each claim."""
    for one in findings:
        evidence = "; ".join(one.evidence)
        status = f"**{one.status}**" + (f": {evidence}" if evidence else "")
        command = f"`{one.command}`" if one.command else "—"
        yield f"`{one.id}`", one.statement, ", ".join(one.places), status, command
