"""Writes the report: reads results, and writes the page and the summary."""

import os
from collections.abc import Sequence
from pathlib import Path

from benchmark.report.markdown import put_into, summarise
from benchmark.report.page import render
from benchmark.report.results import load, merge, newest
from benchmark.report.story import tell
from benchmark.sweep.table import read_rows
from mjsim.errors import SettingError


def write_report(
    files: Sequence[str], folder: str | os.PathLike[str], into: str | None = None
) -> list[Path]:
    """Write the page and the summary; the files that were written.

    Args:
      files: of results; the newest whole run of each suite when there is none.
      folder: of results, and for the report.
      into: a Markdown file to renew the summary in.

    Raises:
      SettingError: a file is no result, or cannot be read or written.
    """
    folder = Path(folder)
    paths = [Path(file) for file in files] or newest(folder)
    tables = [path for path in paths if path.suffix == ".jsonl"]
    documents = [(path.name, load(path)) for path in paths if path not in tables]
    story = tell(merge(documents), [(path.stem, read_rows(path)) for path in tables])
    summary = summarise(story)
    written = {folder / "report.html": render(story), folder / "summary.md": summary}
    try:
        if into:
            written[Path(into)] = put_into(Path(into).read_text(), summary, into)
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in written.items():
            path.write_text(text)
    except OSError as error:
        raise SettingError("folder" if into is None else "into", str(error)) from None
    return list(written)
