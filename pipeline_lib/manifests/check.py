"""A manifest as text: how many videos are usable, and why the others are not."""

from pathlib import Path

import pyarrow.compute as pc

from pipeline_lib.artefacts.layout import MANIFEST, SUMMARY
from pipeline_lib.artefacts.manifest_summary import read_summary
from pipeline_lib.artefacts.tables import read_table
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.build import reason_code, skipped_lines
from pipeline_lib.manifests.one_sided import one_sided_lines
from pipeline_lib.text_table import text_table


def _one_line(text: str) -> str:
    r"""A name may hold a line break or a control character, which is shown as ``\n`` or ``\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_table(folder: Path, reason: str | None = None, limit: int = 3) -> str:
    """Counts per list and status, what is unusual, the reasons with examples, digest and classes, as text.

    Args:
        folder: ``manifests/{dataset}``, or a manifest.parquet in it.
        reason: list every video with this reason instead of examples of each.
        limit: examples per reason.

    Raises:
        UserError: there is no manifest, or no video has the reason.
    """
    folder = folder.parent if folder.name == MANIFEST else folder
    summary = read_summary(folder / SUMMARY)
    table = read_table(folder / MANIFEST, ["id", "path", "status", "reason"])
    bad = table.filter(pc.not_equal(table["reason"], "")).to_pylist()
    if reason is not None:
        chosen = [row for row in bad if reason_code(row["reason"]) == reason]
        if not chosen:
            known = ", ".join(sorted(summary.reasons)) or "none"
            raise UserError(f"no video of {folder} has the reason {reason!r}; there are: {known}.")
        return "\n".join("\t".join(map(_one_line, (row["id"], row["path"], row["reason"]))) for row in chosen)
    lines = [
        f"{summary.dataset} ({summary.format}): {table.num_rows} videos of {len(summary.classes)} classes",
        f"digest {summary.digest}",
        "",
    ]
    statuses = ["accepted", "rejected", "missing"]
    rows = []
    for split, subsets in summary.subsets.items():
        for subset, counts in subsets.items():
            rows.append([f"{split} {subset}", *(str(counts[status]) for status in statuses)])
    lines.append(text_table(["list", *statuses], rows))
    warnings = [*one_sided_lines(summary.one_sided_classes, 10), *skipped_lines(summary.skipped_files)]
    if warnings:
        lines += ["", *map(_one_line, warnings)]
    if bad:
        reasons = [[code, str(count)] for code, count in summary.reasons.items()]
        lines += ["", text_table(["reason", "videos"], reasons), ""]
        shown: dict[str, int] = {}
        for row in bad:
            code = reason_code(row["reason"])
            shown[code] = shown.get(code, 0) + 1
            if shown[code] <= limit:
                lines.append(_one_line(f"{row['id']}: {row['reason']}" + (f" ({row['path']})" if row["path"] else "")))
    return "\n".join(lines)
