"""The documentation site; ``make docs`` builds it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.paths import ROOT

from tools.site import conf

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.name != "index.md")


def contents_of(folder: str) -> list[str]:
    source = [""]
    conf.adapt(SimpleNamespace(srcdir=str(DOCS)), f"{folder}index", source)
    return re.findall(r"^/(.+)$", source[0], re.MULTILINE)


def linked_from(index: Path) -> set[Path]:
    links = re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", index.read_text("utf-8"))
    return {(index.parent / link).resolve() for link in links}


def test_the_contents_name_every_page_once() -> None:
    indexes = [path.parent.relative_to(DOCS) for path in DOCS.rglob("index.md")]
    listed = [name for folder in indexes for name in contents_of("" if folder == Path() else f"{folder}/")]
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == pages - {"index"}


def test_the_first_page_or_the_one_of_its_folder_links_to_every_page() -> None:
    linked = {page for index in DOCS.rglob("index.md") for page in linked_from(index)}
    assert [str(page.relative_to(DOCS)) for page in PAGES if page not in linked] == []


def test_a_link_to_a_markdown_file_elsewhere_becomes_text() -> None:
    source = ["[a](../topics.md#x) [b](../../CHANGELOG.md) [c](../../schemas/index.json)"]
    conf.adapt(SimpleNamespace(srcdir=str(DOCS)), "how-to/page", source)
    assert source == ["[a](../topics.md#x) b [c](../../schemas/index.json)"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script defer src="https://cdn.example/x.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="https://fonts.example/x.css">'),
        ("a.html", '<img alt="" src="http://host.example/x.png">'),
        ("a.css", "@import 'https://fonts.example/x.css';"),
        ("a.css", "a { background: url(https://host.example/x.png) }"),
    ],
)
def test_a_page_that_would_ask_another_host_fails_the_build(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RuntimeError, match="would ask another host"):
        conf.refuse_requests(SimpleNamespace(outdir=str(tmp_path)), None)


def test_a_link_that_a_reader_may_follow_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://host.example/">there</a><script src="_static/x.js"></script>')
    conf.refuse_requests(SimpleNamespace(outdir=str(tmp_path)), None)


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="make docs installs the site's requirements")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "-b", "html"]
    folders = ["-c", str(ROOT / "tools" / "site"), "-d", str(tmp_path / "cache"), str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(
        [*command, *folders],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "site" / "searchindex.js").exists()
