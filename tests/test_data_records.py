"""Records as columns, and problems in words."""

from pathlib import Path

from unicross.data.records import Problem, Record, Records, describe, number_ids, problems_error

A, B = Path("a.png"), Path("b.png")


def test_records_become_columns() -> None:
    records = Records.of(
        [
            Record("x:1", "a", A, "one", "train"),
            Record("x:2", "t", None, "two"),
            Record("x:3", "b", B, None, "val"),
            Record("x:4", "a", A, "", "train"),
        ]
    )
    assert records.ids.to_pylist() == ["a", "t", "b", "a"]
    assert number_ids(records.ids).tolist() == [0, 1, 2, 0]
    assert records.captions.to_pylist() == [["one"], ["two"], None, [""]]
    assert records.picture.tolist() == [0, -1, 1, 0]
    assert [records.pictures[row].name for row in (0, 1)] == ["a.png", "b.png"]
    assert (records.splits, records.split.tolist()) == (("train", "val"), [0, -1, 1, 0])
    assert records.where(2) == "x:3"


def test_problems_are_counted_by_kind_and_few_are_quoted() -> None:
    problems = [Problem("bad line", f"x:{number}", "odd") for number in range(5)]
    problems.append(Problem("empty caption", "y:1", "of b"))
    lines = describe(problems).split("\n")
    assert lines[0] == "5 bad lines, 1 empty caption"
    assert lines[1:5] == [*(f"  x:{n}: bad line: odd" for n in range(3)), "  ... and 2 more of this kind"]
    assert str(problems_error("x", problems)).startswith("x: the data have problems: 5 bad lines")
