"""Which pictures a command is given, in every form in which they can be named."""

import os

import pytest
from PIL import Image

from lightning_priors.errors import PriorError
from lightning_priors.trained.finding import Found, find_pictures, names_below, suffixes

PICTURES = ("a/1.jpg", "a/b/2.PNG", "a/b/3.webp", "c/1.jpg")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in PICTURES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    for name in ("a/notes.md", "a/.hidden.jpg", "a/report.pdf"):
        (tmp_path / name).write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*given, names=()):
    return [str(each.path) for each in find_pictures(given, names)]


def test_a_folder_has_what_lies_below_it_and_no_other_files(folder):
    assert found("a") == ["a/1.jpg", "a/b/2.PNG", "a/b/3.webp"]


def test_a_pattern_that_the_shell_did_not_expand(folder):
    assert found("**/*.jpg") == ["a/1.jpg", "c/1.jpg"]
    assert found("a/*") == ["a/1.jpg"]  # neither notes nor folders


def test_a_file_is_taken_as_it_is(folder):
    assert found("c/1.jpg", "a/notes.md") == ["c/1.jpg", "a/notes.md"]


def test_a_list_is_relative_to_its_file(folder):
    (folder / "c" / "list.txt").write_text("\ufeff1.jpg\n\n../a/1.jpg\n", encoding="utf-8")
    assert found("c/list.txt") == ["c/1.jpg", "c/../a/1.jpg"]


def test_names_on_the_input_are_relative_to_the_working_folder(folder):
    assert found("-", "c", names=["a/1.jpg\n", "\n"]) == ["a/1.jpg", "c/1.jpg"]


@pytest.mark.parametrize("column", ["path", "file", "file_name"])
def test_a_table_keeps_its_other_columns(folder, column):
    (folder / "c" / "t.csv").write_text(f'place,{column}\n"on land, far",1.jpg\n,2.jpg\n')
    rows = find_pictures(["c/t.csv"])
    assert [(str(row.path), row.columns) for row in rows] == [
        ("c/1.jpg", {"place": "on land, far"}),
        ("c/2.jpg", {"place": ""}),
    ]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("nowhere", "there is no picture or folder nowhere: "),
        ("empty", f"there is no picture in the folder empty; looked for {', '.join(suffixes())}"),
        ("x/*.jpg", "no picture matches x/*.jpg; looked for .apng, "),
        ("-", "there is no picture in -"),
        ("wrong.csv", "wrong.csv needs a column path, file or file_name"),
        ("blank.csv", "row 2 of blank.csv names no file in the column path"),
    ],
)
def test_nothing_found_is_one_line(folder, given, line):
    (folder / "empty").mkdir()
    (folder / "wrong.csv").write_text("name\n1.jpg\n")
    (folder / "blank.csv").write_text("path,place\n,land\n")
    with pytest.raises(PriorError) as error:
        find_pictures([given], [])
    assert str(error.value).startswith(line)


def test_pictures_of_one_name_in_two_folders_have_two_names(folder):
    names = names_below(find_pictures(["a", "c"]))
    assert [str(name) for name in names] == list(PICTURES)


def test_names_never_leave_their_folder(folder):
    names = names_below([Found(folder / "a" / ".." / "c" / "1.jpg", {}), Found(folder / "a" / "1.jpg", {})])
    assert [os.path.normpath(name) for name in names] == ["c/1.jpg", "a/1.jpg"]


def test_what_pillow_only_writes_is_not_looked_for():
    assert {".jpg", ".jpeg", ".png", ".tif", ".webp", ".bmp", ".gif"} <= set(suffixes())
    assert not {".pdf", ".h5", ".mpg"} & set(suffixes())
