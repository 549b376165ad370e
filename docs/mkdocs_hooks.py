"""The pages of the site that are no files: the README as its first, and a reference made of docstrings."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "lightning_metakd": "The face of the package",
    "learners": "Learners",
    "losses": "Losses and coefficients",
    "teachers": "Teachers and heads",
    "models": "Models",
    "data": "Data",
    "recipes": "Recipes",
    "metrics": "Metrics",
    "callbacks": "Callbacks",
    "functional": "Functions of parameters",
    "strategy": "Strategy",
    "export": "Export",
    "classify": "Classifying",
}
"""What is documented, by folder."""
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#]+)(#[^)\s]*)?\)")


def modules(folder: str) -> list[str]:
    """The modules of a folder, dotted."""
    if folder == "lightning_metakd":
        return ["lightning_metakd.cli.student", "lightning_metakd.cli.trainer"]
    paths = sorted((ROOT / "lightning_metakd" / folder).glob("*.py"))
    return [f"lightning_metakd.{folder}.{path.stem}" for path in paths if path.stem[0] != "_"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files."""
    pages = {"index.md": (ROOT / "README.md").read_text()}
    reference = []
    for folder, title in FOLDERS.items():
        path = f"reference/{folder}.md"
        pages[path] = "\n\n".join([f"# {title}", *(f"::: {name}" for name in modules(folder))])
        reference.append({title: path})
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    assert config.nav is not None
    config.nav.append({"Reference": reference})
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Links as the site has them: what lies outside of docs/ in a checkout is named and not linked.

    Raises:
        FileNotFoundError: if a link points nowhere.
    """
    here = "" if page.file.src_uri == "index.md" else posixpath.dirname(f"docs/{page.file.src_uri}")

    def as_on_site(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if re.match(r"\w+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(here, target))
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {target}, which is not there.")
        if not path.startswith("docs/"):
            return text.strip("![]")
        own = posixpath.dirname(page.file.src_uri)
        return f"{text}({posixpath.relpath(path.removeprefix('docs/'), own or '.')}{anchor})"

    return LINK.sub(as_on_site, markdown)
