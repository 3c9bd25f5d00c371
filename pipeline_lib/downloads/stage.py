"""The stage ``download``: every item once, by several workers, with a list of what failed and why."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline_lib.artefacts.atomic import write_json
from pipeline_lib.artefacts.locking import artefact_lock
from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.configuration.download import Download
from pipeline_lib.downloads.archives import extract
from pipeline_lib.downloads.failures import DiskFullError, FailedError, RefusedError, StoppedError
from pipeline_lib.downloads.items import Item, annotated_items, distinct, listed_items
from pipeline_lib.downloads.ledger import Ledger
from pipeline_lib.downloads.transfer import Connection, Transfer, connect, fetch_text
from pipeline_lib.downloads.youtube import fetch_clip, require_yt_dlp
from pipeline_lib.errors import UserError

# Refusals in a row after which a site is left alone.
REFUSALS_BEFORE_STOP = 3


def items_of(download: Download, connection: Connection) -> list[Item]:
    """Everything that a download consists of, in the order of its lists.

    Raises:
        UserError: a list is missing or malformed.
    """
    if download.urls is None:
        return distinct(annotated_items(download))
    if download.urls.startswith(("http://", "https://")):
        try:
            text = fetch_text(download.urls, connection, Path(download.destination))
        except FailedError as error:
            raise UserError(f"{download.urls}: the list of URLs cannot be fetched: {error}.") from error
    else:
        try:
            text = Path(download.urls).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{download.urls}: the list of URLs cannot be read: {error}.") from error
    return distinct(listed_items(text, download.urls))


class Stage:
    """One run of the stage over the items of a download.

    Args:
        download: what to fetch and how gently.
        ledger: outcomes of earlier runs.
        connection: the shared pool and rates.
        ffmpeg: the executable that cuts clips; asked for only by kind ``youtube``.
    """

    def __init__(self, download: Download, ledger: Ledger, connection: Connection, ffmpeg: Callable[[], str]) -> None:
        self.download, self.ledger, self.connection, self._ffmpeg = download, ledger, connection, ffmpeg
        self.destination = Path(download.destination)
        self.stopped_by: StoppedError | None = None
        self._refusals = 0
        self._lock = threading.Lock()

    def is_finished(self, item: Item, retry_failed: bool) -> bool:
        """Whether an earlier run settled an item: done and still there, or failed and not asked for again."""
        if self.download.kind != "archives" and (self.destination / item.path).is_file():
            return True
        status = self.ledger.status(item.key)
        if status == "failed":
            return not retry_failed
        return status == "done" and self.download.kind == "archives"

    def _fetch(self, item: Item) -> dict[str, Any]:
        target = self.destination / item.path
        reserve = self.connection.reserve_bytes
        if self.download.kind == "youtube":
            ffmpeg = self._ffmpeg()
            height = self.download.maximum_height
            return {"bytes": fetch_clip(item, target, self.connection, ffmpeg, height, self.connection.stop)}
        # An archive that an earlier run fetched whole, but was stopped before its extraction ended.
        fetched = self.download.kind == "archives" and target.is_file()
        size = target.stat().st_size if fetched else Transfer(item, target, self.connection).run()
        if self.download.kind == "files":
            return {"bytes": size}
        try:
            members = extract(target, self.destination, self.connection.stop, reserve)
        except FailedError:
            target.unlink(missing_ok=True)  # the next try fetches it again
            raise
        if not self.download.keep_archives:
            target.unlink()
        return {"bytes": size, "members": members}

    def _settle(self, item: Item) -> None:
        """Fetch one item and note its outcome; end the stage where going on makes no sense."""
        try:
            details = self._fetch(item)
            self.ledger.record(item.key, "done", url=item.url, **details)
        except RefusedError as error:
            with self._lock:
                self._refusals += 1
                if self._refusals >= REFUSALS_BEFORE_STOP:
                    self._end(
                        StoppedError(
                            f"The site refuses further downloads ({error}). Wait some hours, set `requests_per_second` "
                            "and fewer `workers`, then run the same command again: it goes on from here."
                        )
                    )
            # No verdict on the item: the next run tries it again.
            return
        except FailedError as error:
            self.ledger.record(item.key, "failed", url=item.url, cause=str(error))
        except StoppedError as error:
            with self._lock:
                self._end(error)
            return
        self._refusals = 0

    def _end(self, reason: StoppedError) -> None:
        # The first reason counts, except that a full disk explains more than its followers.
        if self.stopped_by is None or (
            isinstance(reason, DiskFullError) and not isinstance(self.stopped_by, DiskFullError)
        ):
            self.stopped_by = reason
        self.connection.stop.set()

    def run(self, items: list[Item], name: str, retry_failed: bool) -> None:
        """Fetch all items that no earlier run settled."""
        waiting = [item for item in items if not self.is_finished(item, retry_failed)]
        with Progress(f"download {name}", len(items), "items", initial=len(items) - len(waiting)) as progress:
            queue: Iterator[Item] = iter(waiting)

            def work() -> None:
                while not self.connection.stop.is_set():
                    with self._lock:
                        item = next(queue, None)
                    if item is None:
                        return
                    self._settle(item)
                    with self._lock:
                        progress.advance()

            with ThreadPoolExecutor(self.download.workers) as pool:
                workers = [pool.submit(work) for _ in range(self.download.workers)]
                try:
                    for worker in workers:
                        worker.result()
                except BaseException:
                    # Ctrl-C, or an error of ours: the other workers end at their next chunk.
                    self.connection.stop.set()
                    raise


def summary_of(items: list[Item], ledger: Ledger, stage: Stage) -> dict[str, Any]:
    """Counts, and the failures with their causes, sorted."""
    failures = [
        {"path": item.key, "url": item.url, "cause": ledger.outcomes[item.key]["cause"]}
        for item in items
        if ledger.status(item.key) == "failed"
    ]
    num_done = sum(stage.is_finished(item, retry_failed=True) for item in items)
    return {
        "items": len(items),
        "done": num_done,
        "failed": len(failures),
        "left": len(items) - num_done - len(failures),
        "causes": dict(sorted(Counter(failure["cause"] for failure in failures).items())),
        "failures": sorted(failures, key=lambda failure: failure["path"]),
    }


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
        ffmpeg: gives the executable that cuts clips.
        retry_failed: try again what failed in earlier runs.
        stop: set from outside to end the stage.

    Raises:
        UserError: a list is malformed, the disk is full, the site refuses, or the stage was stopped; what is there
            stays, and the same command goes on from it. The summary is not written then.
    """
    stop = threading.Event() if stop is None else stop
    destination = Path(download.destination)
    destination.mkdir(parents=True, exist_ok=True)
    if download.kind == "youtube":
        require_yt_dlp()
    connection = connect(
        download.workers,
        stop,
        requests_per_second=download.requests_per_second,
        bytes_per_second=None if download.megabytes_per_second is None else download.megabytes_per_second * 1e6,
        retries=download.retries,
        backoff_seconds=download.backoff_seconds,
        timeout_seconds=download.timeout_seconds,
        reserve_bytes=int(download.minimum_free_gigabytes * 1e9),
    )
    with artefact_lock(output):
        items = items_of(download, connection)
        ledger = Ledger(output.parent / "outcomes.jsonl")
        try:
            stage = Stage(download, ledger, connection, ffmpeg)
            stage.run(items, name, retry_failed)
            summary = summary_of(items, ledger, stage)
            if stage.stopped_by is not None or stop.is_set():
                reason = stage.stopped_by or StoppedError(
                    "it was stopped; run the same command again: it goes on from here"
                )
                raise UserError(f"download {name}: {summary['done']} of {len(items)} items are there. {reason}")
        finally:
            ledger.close()
            connection.pool.clear()
        write_json(output, summary)
    return summary
