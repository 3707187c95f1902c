"""A comparison, or one run, as a self-contained HTML page: no script, no outside asset, light and dark.

`contents` reads the folder, `figures` draws, `examples` picks queries and thumbnails, `page.html` lays out.
"""

from __future__ import annotations

from pathlib import Path

from unicross.errors import UnicrossError
from unicross.files import write_text


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a comparison's folder or of a run folder.

    `out` is a file, or a folder to hold `report.html`; None: `folder`. Parts for which the folder holds
    nothing are left out, and the page says why. Returns where it is.
    Raises DataError for a folder that is neither, UnicrossError where matplotlib or jinja2 is missing.
    """
    try:
        from unicross.report.page import render
    except ImportError as error:
        raise UnicrossError(
            f"a report needs {error.name}: install it with `pip install 'unicross[report]'`"
        ) from error
    from unicross.report.contents import collect

    out = out or folder
    out = out / "report.html" if out.is_dir() else out
    html = render(collect(folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, html)
    return out
