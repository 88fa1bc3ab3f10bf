"""Files are written whole or not at all, and never through a link that someone else laid."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from saikei.errors import DiskError, InputError
from saikei.report import write_html
from saikei.writing import check_target, draft_folder, remove, write_text, write_whole
from tests.report.sample import sample_run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- places ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.h5", r"must end in \.keras: name it '.*net\.keras'"),
        ("net", r"must end in \.keras: name it '.*net\.keras'"),
        ("missing/net.keras", "no folder '.*missing'"),
        ("net.keras/inner.keras", "no folder '.*net.keras'"),
        ("", "is a folder"),
        ("..", "is a folder"),
        ("folder.keras", "is a folder"),
        ("n" * 300 + ".keras", "cannot be written"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_cannot_be_written_to_is_refused_beforehand(
    tmp_path: Path, name: str, message: str, overwrite: bool
) -> None:
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "net.keras").touch()
    with pytest.raises(InputError, match=message):
        check_target(tmp_path / name, ".keras", overwrite)


def test_a_target_without_ending_may_be_a_folder(tmp_path: Path) -> None:
    assert check_target(tmp_path, "", overwrite=True) == tmp_path
    with pytest.raises(InputError, match="exists"):
        check_target(tmp_path, "", overwrite=False)


def test_a_link_that_leads_nowhere_exists(tmp_path: Path) -> None:
    (tmp_path / "net.keras").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists"):
        check_target(tmp_path / "net.keras", ".keras", overwrite=False)


# --- whole or not at all ---


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    path.write_text("old")

    def fails_half_way(draft: Path) -> None:
        draft.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fails_half_way)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["net.keras"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    path.write_text("old")

    def writes(draft: Path) -> None:
        draft.write_text("new")
        assert path.read_text() == "old"
        assert draft.name == path.name
        assert tmp_path in draft.parents

    write_whole(path, writes)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["net.keras"]


def test_the_new_file_takes_the_name_at_once(tmp_path: Path) -> None:
    path, same = tmp_path / "net.keras", tmp_path / "link"
    path.write_text("old")
    same.hardlink_to(path)
    write_text(path, "new")
    # A rename; writing into the old file would have changed it under its other name too.
    assert same.read_text() == "old"


def test_a_file_has_the_permissions_that_new_files_have(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "written", "")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, limits[1]))
    try:
        with pytest.raises(DiskError, match=r"report\.html' cannot be written \(File too large\)"):
            write_text(path, "x" * size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.html"]


# --- links ---


def test_no_draft_has_a_name_that_can_be_guessed(tmp_path: Path) -> None:
    found: list[str] = []
    for _ in range(2):
        write_whole(tmp_path / "a", lambda draft: found.append(str(draft)) or draft.touch())
    assert found[0] != found[1]
    assert str(os.getpid()) not in Path(found[0]).parent.name
    with draft_folder(tmp_path) as folder:
        assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["report.html", ".report.html.tmp", ".draft-report.html"])
def test_a_report_is_never_written_through_a_link(tmp_path: Path, name: str) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "run"
    secret.write_text("mine")
    folder.mkdir()
    (folder / name).symlink_to(secret)
    page = write_html(sample_run(), folder / "report.html")
    assert secret.read_text() == "mine"
    assert not page.is_symlink()
    assert page.read_text().startswith("<!doctype")


def test_what_is_removed_is_the_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["file"]
    remove(tmp_path / "folder")
    remove(tmp_path / "folder")
    assert names(tmp_path) == []
