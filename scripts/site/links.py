"""Hook of mkdocs: links to files of the repository that are not pages become paths."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "examples/README.md": "examples.md",
}
"""Files of the repository outside docs/ that are pages, with the page of each."""
FILES = {page: file for file, page in PAGES.items()}


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    """Return a page's Markdown with links that are valid in the site.

    Args:
        markdown: Markdown of the page.
        page: the page.
        files: all files of the site.
    """
    here = page.file.src_uri
    folder = posixpath.dirname(FILES.get(here, f"docs/{here}"))

    def replaced(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        file = posixpath.normpath(posixpath.join(folder, target))
        linked = PAGES.get(file, file.removeprefix("docs/"))
        if files.get_file_from_path(linked) is None:
            return f"`{file}`"
        return f"[{text}]({posixpath.relpath(linked, posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(replaced, markdown)
