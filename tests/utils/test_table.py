"""The same rows as terminal table, plain text, Markdown and CSV."""

import io

import pytest

from rfkeras.utils.table import Cell, Table, csv_text, open_console, score_bar, shows_unicode


@pytest.fixture
def table():
    table = Table(["tag", "AP"], right=["AP"])
    table.add_row("flute", Cell("0.913", "bold"))
    table.add_row("[red]bass[/] :guitar:", "-")
    return table


def test_plain_text_is_aligned(table):
    assert table.to_text().splitlines() == [
        "tag                       AP",
        "flute                  0.913",
        "[red]bass[/] :guitar:      -",
    ]


def test_markdown(table):
    assert table.to_markdown().splitlines() == [
        "| tag | AP |",
        "|---|---|",
        "| flute | 0.913 |",
        "| [red]bass[/] :guitar: | - |",
    ]


def test_a_file_gets_plain_text_and_brackets_are_no_markup(table):
    file = io.StringIO()
    open_console(file, width=60).print(table.to_rich())
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert lines[0].split() == ["tag", "AP"]
    assert set(lines[1].strip()) == {"─"}
    assert lines[2].split() == ["flute", "0.913"]
    assert lines[3].split() == ["[red]bass[/]", ":guitar:", "-"]
    assert len({len(line) for line in lines if line[-1] != " "}) == 1  # right-aligned


def test_text_columns_wrap_and_numbers_do_not(table):
    file = io.StringIO()
    open_console(file, width=16).print(table.to_rich())
    shown = file.getvalue()
    assert "0.913" in shown
    assert all(len(line) <= 16 for line in shown.splitlines())


def test_styles_appear_only_on_a_terminal(table):
    console = open_console(io.StringIO(), width=60)
    assert "\x1b" not in console.file.getvalue()
    console._force_terminal, console._color_system = True, 1
    console.print(table.to_rich())
    assert "\x1b[1m0.913" in console.file.getvalue()


def test_a_row_of_another_length_is_rejected(table):
    with pytest.raises(ValueError, match="needs 2 cells"):
        table.add_row("flute")


@pytest.mark.parametrize(
    ("terminal", "options", "width"),
    [
        ("40", {}, 80),
        ("120", {}, 120),
        ("40", {"least_width": 30}, 40),
        ("120", {"width": 50}, 50),
        ("120", {"piped_width": 100}, 100),
    ],
)
def test_width_of_the_console(terminal, options, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", terminal)
    assert open_console(io.StringIO(), **options).width == width


def test_an_output_without_block_characters_is_detected():
    for encoding, expected in (("utf-8", True), ("latin-1", False)):
        file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        assert shows_unicode(open_console(file)) is expected


@pytest.mark.parametrize(
    ("value", "blocks", "signs"),
    [
        (0, "", ""),
        (1, "█" * 10, "#" * 10),
        (0.5, "█" * 5, "#" * 5),
        (0.72, "███████▎", "#######"),
    ],
)
def test_score_bar(value, blocks, signs):
    assert score_bar(value) == blocks
    assert score_bar(value, unicode=False) == signs


def test_csv_has_a_header_and_empty_cells():
    rows = [{"tag": "a, b", "AP": 0.5}, {"tag": "c", "AP": None}]
    assert csv_text(rows) == 'tag,AP\n"a, b",0.5\nc,\n'
    assert csv_text([{"AP": 1}], ("tag", "AP")) == "tag,AP\n,1\n"
    assert csv_text([], ("tag",)) == "tag\n"
