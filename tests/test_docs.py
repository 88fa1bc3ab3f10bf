"""What the documents show is what the code does: their Python runs, and their commands exist."""

from __future__ import annotations

import math
import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

import saikei
from saikei.cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
)


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def run_python_of(document: str) -> None:
    """Run the Python blocks of a document, one after the other, as one program."""
    text = text_of(document)
    names: dict[str, object] = {"__name__": f"python_of_{Path(document).stem}"}
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S))
    assert blocks, f"{document} has no Python"
    for block in blocks:
        # Tracebacks then give the line of the document.
        above = "\n" * text[: block.start(1)].count("\n")
        exec(compile(above + block[1], document, "exec", dont_inherit=True), names)


def test_the_examples_of_a_rule_an_edit_and_a_fusion_run() -> None:
    run_python_of("CONTRIBUTING.md")


def test_the_readmes_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_python_of("README.md")
    assert (tmp_path / "small.keras").is_file()
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_guides_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_python_of("docs/guide.md")
    assert (tmp_path / "fused.keras").is_file()


# Pages whose Python runs as one program each, and what some of them need beyond `make install`.
PAGES = [
    document
    for document in DOCUMENTS
    if re.match(r"docs/(tutorials/|how-to/|cluster)", document) and "```python" in text_of(document)
]
NEEDED = {
    "docs/cluster.md": "ray",
    "docs/how-to/keras-tuner.md": "keras_tuner",
    "docs/how-to/transformers.md": "keras_hub",
}
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


# Where no epoch was better than what it began with, `fit` warns and keeps that.
@pytest.mark.filterwarnings("ignore::saikei.errors.TrainingWarning")
@pytest.mark.slow
@pytest.mark.parametrize("document", PAGES)
def test_a_page_prints_what_it_shows(
    document: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The words are the same and the numbers near: training rounds differently on each machine."""
    pytest.importorskip(NEEDED.get(document, "keras"))
    shown = "".join(re.findall(r"^```text\n(.*?)^```", text_of(document), re.M | re.S))
    monkeypatch.chdir(tmp_path)
    run_python_of(document)
    printed = capsys.readouterr().out if shown else ""
    assert words_of(printed) == words_of(shown)
    for one, other in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        a, b = (float(number.replace(",", "")) for number in (one, other))
        assert math.isclose(a, b, rel_tol=0.15, abs_tol=0.05), f"{one} is printed, {other} is shown"


def words_of(text: str) -> list[str]:
    return NUMBER.sub("#", text).split()


@pytest.mark.parametrize("document", PAGES)
def test_a_page_is_on_the_site(document: str) -> None:
    assert str(Path(document).relative_to("docs").with_suffix("")) in text_of("docs/index.md")


def test_the_reference_has_every_public_name() -> None:
    pages = "".join(text_of(document) for document in DOCUMENTS if "reference/" in document)
    described = set(re.findall(r"auto(?:class|function|exception):: saikei\.(\w+)$", pages, re.M))
    assert described == set(saikei.__all__)


def same_in_every_language(document: str) -> dict[str, list[str]]:
    """What a translation leaves as it is: code without comments, commands, links and figures."""
    text = text_of(document)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    tables = "\n".join(re.findall(r"^\|.*$", prose, re.M))
    # Languages differ in the order of a sentence's links and figures.
    return {
        "code": re.sub(r"#.*", "#", "".join(re.findall(r"^```.*?^```", text, re.M | re.S))).split(),
        "headings": re.findall(r"^#+", prose, re.M),
        "points": re.findall(r"^- ", prose, re.M),
        "rows": re.findall(r"^\|", prose, re.M),
        "words in code": sorted(re.findall(r"`([^`]+)`", prose)),
        "figures": sorted(re.findall(r"\d+(?:\.\d+)?", tables)),
        "links": sorted(re.findall(r"\]\((?!README)([^)]+)\)", prose)),
    }


def test_the_chinese_readme_is_kept_in_step() -> None:
    assert same_in_every_language("README.zh-CN.md") == same_in_every_language("README.md")


def test_the_figures_of_the_readme_are_measured_ones() -> None:
    claims = re.findall(r"^\| (.*) \| `python (\S+)` \|$", text_of("README.md"), re.M)
    assert claims
    pages = "".join(text_of(f"docs/{page}.md") for page in ("benchmarks", "coverage", "tried"))
    for claim, script in claims:
        assert f"python {script}" in pages
        assert [figure for figure in figures_in(claim) if figure not in pages] == []


def test_the_tables_of_results_are_those_that_benchmarks_wrote() -> None:
    with_tables = runpy.run_path(str(ROOT / "benchmarks/record.py"))["with_tables"]
    page = text_of("docs/benchmarks.md")
    assert with_tables(page) == page, "run: python benchmarks/record.py"
    marked = set(re.findall(r"<!-- results: (\w+) -->", page))
    assert {path.stem for path in (ROOT / "benchmarks/results").glob("*.json")} <= marked


def test_the_figures_that_a_method_is_chosen_by_are_measured_ones() -> None:
    figures, measured = (
        figures_in(text_of("docs/how-to/choosing.md")),
        text_of("docs/benchmarks.md"),
    )
    assert figures
    assert [figure for figure in figures if figure not in measured] == []


def figures_in(text: str) -> list[str]:
    return re.findall(r"\d+\.\d+(?: ± \d+\.\d+)?", text)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text_of(document)):
        assert ((ROOT / document).parent / target).exists(), target


@pytest.mark.parametrize(
    "document", ["CONTRIBUTING.md", "docs/design.md", "docs/decisions.md", "docs/search.md"]
)
def test_files_and_folders_that_are_named_exist(document: str) -> None:
    files = (
        path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    )
    here = {str(path.relative_to(ROOT)) for path in files}
    here |= {f"{folder}/" for path in here for folder in Path(path).parents}
    here |= {"tests/", *(f"tests/{path.name}/" for path in (ROOT / "tests").iterdir())}
    named = re.findall(r"`((?:\w+/)*(?:\w+/|\w+\.py))`", text_of(document))
    assert named
    missing = [name for name in named if not any(f"/{p}".endswith(f"/{name}") for p in here)]
    assert missing == []


def commands() -> dict[str, set[str]]:
    """The options of each command of the command line."""
    group = get_command(app)
    return {
        name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        for name, command in group.commands.items()
    }


def test_the_guide_names_every_command() -> None:
    named = re.findall(r"^\| `saikei (\w+)", text_of("docs/guide.md"), re.M)
    assert sorted(named) == sorted(commands())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_are_shown_with_options_that_exist(document: str) -> None:
    known = commands()
    shown = rf"\bsaikei ((?:{'|'.join(known)})[^`|\n]*)"
    for line in re.findall(shown, text_of(document)):
        command, *rest = shlex.split(line, comments=True)
        options = {word for word in rest if word.startswith("--")}
        assert options <= known[command] | {"--help"}, line


def test_every_command_takes_json() -> None:
    assert [name for name, options in commands().items() if "--json" not in options] == []


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_that_are_named_exist(document: str) -> None:
    targets = re.findall(r"^([a-z-]+):", text_of("Makefile"), re.M)
    named = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", text_of(document), re.M))
    assert {one or other for one, other in named} - set(targets) == set()


def test_the_changelog_names_every_public_name() -> None:
    text = text_of("CHANGELOG.md")
    assert [name for name in saikei.__all__ if f"`{name}`" not in text] == []
