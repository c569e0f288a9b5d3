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
}


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    """Return a page's Markdown with links that are valid in the site.

    Args:
        markdown: Markdown of the page.
        page: the page.
        files: all files of the site.
    """
    folder = posixpath.dirname(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        target = PAGES.get(posixpath.basename(target), target)
        target = target.removeprefix("docs/") if folder == "" else target
        if files.get_file_from_path(posixpath.normpath(posixpath.join(folder, target))) is None:
            return f"`{match[2]}`"
        return f"[{text}]({target}{anchor})"

    return LINK.sub(replaced, markdown)
