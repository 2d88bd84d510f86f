"""Tables of errors by label and spread, by hand."""

import sys
from pathlib import Path

import pytest

from benchmarks import by_range

ROWS = """id,target,prediction,std
a,0,0.05,0.001
b,0,0.3,0.2
c,1,0.1,0.2
d,1.5,1.0,0.1
e,3,,0.1
f,5,4.0,0.6
"""


def test_crystals_stand_between_their_labels_and_spreads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "predictions.csv").write_text(ROWS)
    flags = [f"--predictions={tmp_path / 'predictions.csv'}", "--labels=0,1,4", "--spreads=0.01,0.2"]
    monkeypatch.setattr(sys, "argv", ["by_range", *flags])
    by_range.main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[2:7] == [
        "| all | 5 | 0.550 | -0.410 | 40.0% |",
        "| at most 0 | 2 | 0.175 | +0.175 | 50.0% |",
        "| 0 to 1 | 1 | 0.900 | -0.900 | 100.0% |",
        "| 1 to 4 | 1 | 0.500 | -0.500 | 0.0% |",
        "| above 4 | 1 | 1.00 | -1.000 | 0.0% |",
    ]
    # Within two spreads lie b, 0.3 of 0.4, and f, 1 of 1.2; not a, c and d.
    assert shown[10:14] == [
        "| all | 5 | 0.550 | 40% |",
        "| at most 0.01 | 1 | 0.0500 | 0% |",
        "| 0.01 to 0.2 | 3 | 0.567 | 33% |",
        "| above 0.2 | 1 | 1.00 | 100% |",
    ]


@pytest.mark.parametrize("text", ["1", "2,1", "1,1"])
def test_edges_ascend(text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["by_range", "--predictions=x", f"--labels={text}"])
    with pytest.raises(SystemExit):
        by_range.main()
    assert "two numbers or more, ascending" in capsys.readouterr().err
