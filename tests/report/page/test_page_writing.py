"""The page as a file: valid HTML, nothing from a network, small enough, and no script but its own."""

from __future__ import annotations

import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_folders import killed_run, whole_run

from secateur.cli import main
from secateur.errors import UserError
from secateur.report.page import leave_page, wording, write_page, writing

pytest.importorskip("plotly")

VOID = {"meta", "input", "br", "img", "link", "hr"}
HOSTILE = '</script><script>alert("1")</script><b title="&">'


class Page(HTMLParser):
    """Collects what a page has, and what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.links: list[str] = []
        self.references: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.faults: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if len(given) != len(attrs):
            self.faults.append(f"{tag} has an attribute twice")
        if tag not in VOID:
            self.open.append(tag)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.links += [str(given[name]) for name in ("src", "href", "action", "data", "poster") if given.get(name)]
        for name in ("aria-labelledby", "aria-describedby", "aria-controls", "for"):
            self.references += (given.get(name) or "").split()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)


def page_of(*folders: Path, reference: str = "") -> tuple[str, Page]:
    file = write_page(folders, folders[0] / "report.html", reference)
    text = file.read_text(encoding="utf-8")
    return text, Page(text)


def test_the_html_is_sound(tmp_path: Path) -> None:
    text, page = page_of(whole_run(tmp_path / "a"), killed_run(tmp_path / "b"))
    assert text.startswith("<!doctype html>") and not page.faults and not page.open
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.references) <= set(page.ids)
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    names = [tag for tag, _ in page.tags]
    assert {"header", "nav", "main", "footer", "noscript"} <= set(names)
    assert all(given.get("scope") for tag, given in page.tags if tag == "th")
    assert names.count("table") == names.count("caption")
    plots = [given for _, given in page.tags if given.get("role") == "img"]
    assert plots and all(given["aria-labelledby"] and given["aria-describedby"] for given in plots)


def test_nothing_comes_from_a_network(tmp_path: Path) -> None:
    text, page = page_of(whole_run(tmp_path / "exp"))
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "@import" not in text and not re.findall(r"url\(\s*['\"]?(?!data:|#)\w", "".join(page.texts["style"]))
    policy = next(given["content"] for _, given in page.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    scripts = [data for data in page.texts["script"] if not data.startswith("{")]
    assert len(scripts) == 2 and all(f"'sha256-{writing.digest(script)}'" in policy for script in scripts)


def test_the_page_is_small_enough(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(80)]
    text, _ = page_of(*(whole_run(tmp_path / name, names=names) for name in "abc"))
    assert len(text.encode()) < writing.MOST_BYTES


def test_hostile_names_are_text(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "exp", names=[HOSTILE, "star"], data=f"/data/{HOSTILE}.yaml")
    text, page = page_of(folder)
    assert not page.faults and sum(tag == "script" for tag, _ in page.tags) == 3
    assert "<script>alert" not in text and any(HOSTILE in data for data in page.texts["th"])
    data = json.loads(next(data for data in page.texts["script"] if data.startswith("{")))
    names = [name for figure in data.values() for view in figure["views"].values() for trace in view["data"]
             for name in trace.get("y", []) if isinstance(name, str)]  # fmt: skip
    # Plotly takes some tags in texts as its own; a long name is shortened.
    assert wording.markup(f"{HOSTILE[:23]}…") in names and not any("<" in name for name in names)


def test_a_second_page_is_the_same(tmp_path: Path) -> None:
    folder = whole_run(tmp_path / "exp")
    assert page_of(folder)[0] == page_of(folder)[0]


def test_figures_are_finite_json(tmp_path: Path) -> None:
    assert writing.as_script_data({"a": [float("nan"), float("inf"), 0.123456789], "b": "<&>"}) == (
        '{"a":[null,null,0.123457],"b":"\\u003c\\u0026\\u003e"}'
    )


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole_run(tmp_path / "runs" / "exp")
    main(["report", "runs/exp"])
    assert "Report: runs/exp/report.html" in capsys.readouterr().out
    main(["report", "runs/exp", "--output", "side.html", "--json"])
    assert json.loads(capsys.readouterr().out) == {"command": "report", "runs": ["runs/exp"], "file": "side.html"}
    main(["report", "runs/exp"])  # a page of ours may be written again
    (tmp_path / "mine.html").write_text("<html>mine</html>")
    (tmp_path / "empty").mkdir()
    for words, sentence in (
        ([], "No run is given"),
        (["empty"], "empty does not contain a run"),
        (["runs/exp", "--output", "mine.html"], "mine.html exists and is not a page of Secateur"),
        (["runs/exp", "--output", "page.pdf"], "is not an HTML file"),
        (["runs/exp", "--reference", "none.csv"], "Cannot read none.csv"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["report", *words])
        assert end.value.code == 2
        assert sentence in capsys.readouterr().err
    assert (tmp_path / "mine.html").read_text() == "<html>mine</html>"


def test_without_the_extra_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = whole_run(tmp_path / "exp")
    monkeypatch.setattr(writing, "installed", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'secateur\[report\]'"):
        write_page([folder], folder / "report.html")
    with caplog.at_level(logging.WARNING, "secateur"):
        assert leave_page(folder) is None
    assert "No report.html: the report page needs plotly" in caplog.text and not (folder / "report.html").exists()


def test_a_failing_page_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*arguments: object) -> str:
        raise RuntimeError("no such colour")

    folder = whole_run(tmp_path / "exp")
    monkeypatch.setattr(writing, "page_text", fails)
    with caplog.at_level(logging.WARNING, "secateur"):
        assert leave_page(folder) is None
    assert "No report.html: no such colour (the run itself is complete)." in caplog.text
