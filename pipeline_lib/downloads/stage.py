"""The stage ``download``: every item once, by several workers, with a list of what failed and why."""

import errno
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline_lib.artefacts.locking import artefact_lock
from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.sealing import CHECKSUM, is_sealed, sealed, write_sealed_json
from pipeline_lib.configuration.download import Download
from pipeline_lib.downloads.archives import extract
from pipeline_lib.downloads.items import Item, read_items
from pipeline_lib.downloads.session import FailedError, OutcomeError, Session
from pipeline_lib.downloads.transfer import fetch
from pipeline_lib.downloads.youtube import fetch_clip
from pipeline_lib.errors import UserError
from pipeline_lib.plain_data import parse_json

# Refusals in a row after which the stage asks a site no more.
REFUSALS_BEFORE_STOP = 3


def _fetch(item: Item, session: Session, ffmpeg: Callable[[], str]) -> dict[str, Any]:
    settings, target = session.settings, session.place(item.path)
    if settings.kind == "youtube":
        return {"bytes": fetch_clip(item, target, session, ffmpeg())}
    # If the file exists already, it is an archive that an earlier run could not extract.
    size = target.stat().st_size if target.is_file() else fetch(item, target, session)
    if settings.kind == "files":
        return {"bytes": size}
    try:
        num_members = extract(target, session)
    except FailedError:
        target.unlink()  # the next try fetches it again
        raise
    if not settings.keep_archives:
        target.unlink()
    return {"bytes": size, "members": num_members}


def _settle(item: Item, session: Session, ffmpeg: Callable[[], str]) -> dict[str, Any]:
    """Fetch an item; return its line for the ledger, or why it gets none (``left``, ``refused``, ``stopped``)."""
    status, details = "done", {}
    try:
        session.wait()
        details = _fetch(item, session, ffmpeg)
    except OutcomeError as error:
        status, details = error.status, {"cause": str(error)}
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        status, details = "stopped" if is_full else "failed", {"cause": f"{error}{'. Make room' if is_full else ''}"}
    session.refusals = session.refusals + 1 if status == "refused" else 0
    if session.refusals >= REFUSALS_BEFORE_STOP:
        advice = "Wait some hours, set `requests_per_second` and fewer `workers`"
        status, details = "stopped", {"cause": f"The site refuses further downloads ({details['cause']}). {advice}"}
    if status == "stopped":
        session.ended = session.ended or details["cause"]
        session.stop.set()
    return {"key": str(item.path), "url": item.url, "status": status, **details}


def _text_of(source: str, session: Session, scratch: Path) -> str:
    try:
        if not source.startswith(("http://", "https://")):
            return Path(source).read_text(encoding="utf-8-sig")
        fetch(Item(PurePosixPath(scratch.name), source), scratch, session)
        return scratch.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, OutcomeError) as error:
        raise UserError(f"{source}: the list cannot be read: {error}.") from error


def run_download(
    name: str,
    download: Download,
    output: Path,
    ffmpeg: Callable[[], str],
    retry_failed: bool = False,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Run the stage; write its summary; return it.

    Args:
        name: the download's name in the configuration.
        download: what to fetch.
        output: ``summary.json``; the ledger lies beside it as ``outcomes.jsonl``.
        ffmpeg: gives the executable that cuts clips; asked for only by kind ``youtube``.
        retry_failed: try again what failed in earlier runs.
        stop: set from outside to end the stage.

    Raises:
        UserError: a list is malformed, the disk is full, items do not fit on it, the site refuses, or the stage was
            stopped. What was fetched stays, and the same command continues. The summary is not written then.
    """
    session = Session(download, stop or threading.Event())
    path = output.with_name("outcomes.jsonl")
    with artefact_lock(output), open(path, "a+", encoding="utf-8", errors="replace") as ledger:
        items = read_items(download, lambda source: _text_of(source, session, output.with_name("urls.txt")))
        # The ledger holds what the destination does not show: extracted archives, and failures with their causes.
        known: dict[str, dict[str, Any]] = {}
        ledger.seek(0)
        for line in ledger:
            # A killed run leaves an incomplete last line, a power cut zeros, a disk changed bits: such an item is
            # fetched again.
            with suppress(ValueError, KeyError, TypeError):
                outcome = parse_json(line)
                # An earlier version wrote no checksums; to fetch its archives again would cost days.
                if is_sealed(outcome) or CHECKSUM not in outcome:
                    known[outcome["key"]] = outcome

        def is_there(key: str) -> bool:
            archived = download.kind == "archives"
            return known.get(key, {}).get("status") == "done" if archived else (session.root / key).is_file()

        failed = {key for key in known if known[key]["status"] == "failed"} - (set(items) if retry_failed else set())
        waiting = [item for key, item in items.items() if key not in failed and not is_there(key)]
        with (
            Progress(f"download {name}", len(items), "items", initial=len(items) - len(waiting)) as progress,
            ThreadPoolExecutor(download.workers) as pool,
        ):
            left = []
            try:
                for future in as_completed([pool.submit(_settle, item, session, ffmpeg) for item in waiting]):
                    outcome = future.result()
                    if outcome["status"] in ("done", "failed"):
                        known[outcome["key"]] = outcome
                        ledger.write(f"\n{json.dumps(sealed(outcome))}\n")  # begin a new line after an incomplete one
                        ledger.flush()
                        os.fsync(ledger.fileno())
                    else:
                        left.append(f"{outcome['key']}: {outcome['cause']}")
                    progress.advance()
            finally:
                session.stop.set()  # after an error the other workers end at their next chunk
        num_done = sum(map(is_there, items))
        if left:
            raise UserError(
                f"download {name}: {num_done} of {len(items)} items are there. {session.ended or left[0]}. "
                "Run the same command again: it goes on from here."
            )
        failures = [
            {"path": key, "url": item.url, "cause": known[key]["cause"]}
            for key, item in sorted(items.items())
            if not is_there(key)
        ]
        causes = Counter(failure["cause"] for failure in failures)
        counts = {"items": len(items), "done": num_done, "failed": len(failures)}
        summary = {**counts, "causes": dict(sorted(causes.items())), "failures": failures}
        write_sealed_json(output, summary)
    return summary
