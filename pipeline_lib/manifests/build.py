"""The manifest stage: from annotations and videos to one table with a status and a reason per video."""

import hashlib
import itertools
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import pyarrow as pa

from pipeline_lib.artefacts.digest import digest, file_digest
from pipeline_lib.artefacts.fingerprint import code_fingerprint
from pipeline_lib.artefacts.layout import BOXES, GENERATED, MANIFEST, SHARD_LISTS, SUMMARY, Layout, shard_names
from pipeline_lib.artefacts.progress import Progress
from pipeline_lib.artefacts.records import distribution_versions
from pipeline_lib.artefacts.sealing import DamageError, read_sealed_json, write_sealed_json
from pipeline_lib.artefacts.stage import Stage
from pipeline_lib.artefacts.tables import write_table
from pipeline_lib.configuration.data import Dataset
from pipeline_lib.configuration.formats import FORMATS
from pipeline_lib.configuration.presence import check_data
from pipeline_lib.configuration.specification import ManifestSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.annotation_files import source_digests
from pipeline_lib.manifests.cache import ProbeCache
from pipeline_lib.manifests.code import manifest_modules
from pipeline_lib.manifests.content import file_identity, is_utf8, printable
from pipeline_lib.manifests.filters import apply_filter, filter_identity
from pipeline_lib.manifests.importers import read_listing
from pipeline_lib.manifests.matching import FileIndex, match
from pipeline_lib.manifests.one_sided import one_sided_classes, one_sided_lines
from pipeline_lib.manifests.parameters import listed_inputs, manifest_parameters
from pipeline_lib.manifests.pool import probe_each
from pipeline_lib.manifests.probing import Probe, unreadable
from pipeline_lib.manifests.schema import (
    ACCEPTED,
    MISSING,
    REJECTED,
    Box,
    ListedVideo,
    Listing,
    manifest_schema,
    reject_unusable,
    subset_columns,
)
from pipeline_lib.manifests.shard_lists import write_shard_list
from pipeline_lib.manifests.text_files import composed

# The digest covers everything that decides what is trained on, and nothing that depends on where the files lie.
_DIGEST_COLUMNS = ("id", "labels", "group", "start", "end", "num_frames", "frames_per_second", "height", "width")


def _libavcodec() -> str:
    """Version of the decoders inside PyAV, which are not those of the ffmpeg command."""
    return ".".join(str(part) for part in av.library_versions["libavcodec"])


def shard_index(id: str, num_shards: int) -> int:
    """The packed shard of a video: SHA-256 of its id modulo the number of shards."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest(), "big") % num_shards


def reason_code(reason: str) -> str:
    """The part of a reason that is counted: ``too short`` of ``too short: 1 frame, 8 are needed``."""
    return reason.partition(":")[0]


def _probe_all(
    dataset: Dataset, paths: Sequence[str], cache_file: Path, num_workers: int
) -> tuple[dict[str, Probe], int]:
    """Probes by path, and how many of them came from the cache."""
    decode = dataset.probe == "decode"
    origin = digest(
        {"code": code_fingerprint(["pipeline_lib.manifests.probing"]), "decode": decode, "av": av.__version__}
    )
    result: dict[str, Probe] = {}
    with ProbeCache(cache_file, origin) as cache:
        known = cache.load()
        waiting: list[str] = []
        identity: dict[str, tuple[int, int]] = {}
        for path in dict.fromkeys(paths):
            try:
                identity[path] = file_identity(Path(path))
            except OSError as error:
                result[path] = Probe(problem=unreadable(error), passing=True)
                continue
            if path in known and known[path][:2] == identity[path]:
                result[path] = known[path][2]
            else:
                waiting.append(path)
        num_cached = len(result)
        if waiting:
            with Progress("probing", num_cached + len(waiting), "videos", initial=num_cached) as progress:
                for path, probe in probe_each(waiting, num_workers, decode, dataset.probe_seconds):
                    result[path] = probe
                    # What the machine may have caused is tried again by the next run.
                    if not probe.passing:
                        cache.store(path, *identity[path], probe)
                    progress.advance()
    return result, num_cached


def _judge(video: ListedVideo, path: str, probe: Probe | None, dataset: Dataset) -> tuple[str, str]:
    """Status and reason of one video."""
    if video.reason:
        return REJECTED, video.reason
    if not path:
        return MISSING, f"missing: no file called {printable(video.names[0])} in the video folders"
    if probe is None:
        return ACCEPTED, ""
    if probe.problem and not (probe.usable and dataset.on_decode_error == "keep"):
        return REJECTED, probe.problem
    counted = (probe.num_frames, probe.num_flows)
    if video.num_frames is not None and probe.num_frames is not None and video.num_frames not in counted:
        flows = f" and {probe.num_flows} flow images" if probe.num_flows else ""
        return (
            REJECTED,
            f"counts disagree: {video.num_frames} in the list, {probe.num_frames} frames{flows} in the folder",
        )
    if probe.num_frames is not None and probe.num_frames < dataset.minimum_frames:
        plural = "" if probe.num_frames == 1 else "s"
        return REJECTED, f"too short: {probe.num_frames} frame{plural}, {dataset.minimum_frames} are needed"
    if video.trim and not FORMATS[dataset.format].kept_cut:
        reason = _short_part(video, probe, dataset.minimum_frames)
        if reason:
            return REJECTED, reason
    short_side = min(probe.height or 0, probe.width or 0)
    if probe.usable and short_side < dataset.minimum_short_side:
        size = f"{probe.width}×{probe.height}"
        return REJECTED, f"too small: {size}, the short side must be {dataset.minimum_short_side}"
    return ACCEPTED, ""


def _short_part(video: ListedVideo, probe: Probe, minimum_frames: int) -> str:
    """The reason if too little of a file lies in the part of it that is the video, else an empty string."""
    if not probe.frames_per_second or video.start is None or video.end is None:
        return ""
    end = video.end
    if probe.num_frames:
        seconds = probe.num_frames / probe.frames_per_second
        if seconds <= video.start:
            return f"too short: the file ends at {seconds:.1f} s, the video's part begins at {video.start:g} s"
        end = min(end, seconds)
    held = round((end - video.start) * probe.frames_per_second)
    if held >= minimum_frames:
        return ""
    plural = "" if held == 1 else "s"
    return (
        f"too short: {held} frame{plural} of the file lie in the part from {video.start:g} to {video.end:g} s, "
        f"{minimum_frames} are needed"
    )


def _reject_same_files(videos: Sequence[ListedVideo], paths: Sequence[str]) -> list[ListedVideo]:
    """Reject a video whose file already belongs to an earlier one, unless each takes its own interval of the file."""
    owner: dict[str, str] = {}
    result = []
    for video, path in zip(videos, paths, strict=True):
        if path and not video.reason and not video.trim:
            if path in owner:
                video = video._replace(reason=f"duplicate video: its file is already that of {owner[path]}")
            else:
                owner[path] = video.id
        result.append(video)
    return result


def _reject_unwritable(videos: Sequence[ListedVideo], paths: Sequence[str]) -> tuple[list[ListedVideo], list[str]]:
    """Reject a video whose path is not UTF-8: neither the table nor a shard's list can hold it."""
    rejected = [
        video if is_utf8(path) or video.reason else video._replace(reason="unusable name: it is not UTF-8; rename it")
        for video, path in zip(videos, paths, strict=True)
    ]
    return rejected, [printable(path) for path in paths]


def _with_printable_names(video: ListedVideo) -> ListedVideo:
    """A video whose id, labels and group can be written, its labels in one Unicode form.

    Its file is still looked for under its own name.
    """
    texts = (video.id, video.group, *video.labels)
    if all(map(str.isascii, texts)):
        return video
    id, group, *labels = map(printable, texts)
    return video._replace(id=id, group=group, labels=tuple(map(composed, labels)))


def _columns(
    videos: Sequence[ListedVideo], paths: Sequence[str], probes: dict[str, Probe], dataset: Dataset
) -> dict[str, list[Any]]:
    names = shard_names(dataset.shards)
    nothing = Probe()
    columns: dict[str, list[Any]] = {field.name: [] for field in manifest_schema(dataset.num_splits)}
    subsets = subset_columns(dataset.num_splits)
    for video, path in zip(videos, paths, strict=True):
        probe = probes.get(path)
        status, reason = _judge(video, path, probe, dataset)
        probe = probe or nothing
        columns["id"].append(video.id)
        columns["path"].append(path)
        columns["labels"].append(video.labels)
        for name, subset in zip(subsets, video.subsets, strict=True):
            columns[name].append(subset)
        columns["group"].append(video.group)
        columns["start"].append(video.start)
        columns["end"].append(video.end)
        columns["num_frames"].append(probe.num_frames)
        columns["frames_per_second"].append(probe.frames_per_second or dataset.frames_per_second)
        columns["height"].append(probe.height)
        columns["width"].append(probe.width)
        columns["content_digest"].append(probe.content_digest)
        columns["shard"].append(names[shard_index(video.id, dataset.shards)])
        columns["status"].append(status)
        columns["reason"].append(reason)
    return columns


def rows_digest(columns: dict[str, list[Any]], num_splits: int, identity: Any) -> str:
    """SHA-256 over the rows that decide what is trained on and evaluated, and over the filter.

    Paths, modification times and the number of shards are not part of it, so that the same data has the same digest on
    every machine.
    """
    names = (*_DIGEST_COLUMNS[2:], *subset_columns(num_splits), "content_digest", "status", "reason")
    hasher = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    rest = zip(*(columns[name] for name in names), strict=True)
    for id, labels, row in zip(columns["id"], columns["labels"], rest, strict=True):
        hasher.update(repr((id, list(labels), *row)).encode())
    return hasher.hexdigest()


def _counts(columns: dict[str, list[Any]], num_splits: int) -> dict[str, dict[str, dict[str, int]]]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for name in subset_columns(num_splits):
        counted = Counter(zip(columns[name], columns["status"], strict=True))
        counts[name] = {
            subset or "none": {status: counted[subset, status] for status in (ACCEPTED, REJECTED, MISSING)}
            for subset in sorted({subset for subset, _ in counted})
        }
    return counts


def _one_sided(columns: dict[str, list[Any]], num_splits: int) -> dict[str, dict[str, dict[str, str]]]:
    """Classes that only one list has, of each split in which there are such."""
    usable = [status == ACCEPTED for status in columns["status"]]
    found = {
        name: one_sided_classes(itertools.compress(zip(columns[name], columns["labels"], strict=True), usable))
        for name in subset_columns(num_splits)
    }
    return {name: classes for name, classes in found.items() if classes}


def skipped_lines(skipped: Mapping[str, int]) -> list[str]:
    """What a manifest's summary says of files that are no video of the data set, as text."""
    if not skipped:
        return []
    parts = ", ".join(f"{count} × {reason}" for reason, count in skipped.items())
    return [f"{sum(skipped.values())} files are skipped: {parts}"]


def _write_boxes(path: Path, boxes: Sequence[Box], accepted: set[str]) -> None:
    """Write the boxes of the accepted videos, sorted."""
    rows = sorted(box for box in boxes if box.id in accepted)
    kinds = {"id": pa.string(), "subset": pa.string(), "label": pa.string(), "person": pa.int64()}
    arrays = {
        name: pa.array([getattr(box, name) for box in rows], type=kinds.get(name, pa.float64())) for name in Box._fields
    }
    write_table(path, pa.table(arrays))


def _shard_lists(
    columns: dict[str, list[Any]], listed: Sequence[ListedVideo], probes: Mapping[str, Probe], dataset: Dataset
) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    """The list of each shard for the frames stage: accepted videos without labels, sorted by id."""
    rows: dict[str, list[int]] = defaultdict(list)
    for index, status in enumerate(columns["status"]):
        if status == ACCEPTED:
            rows[columns["shard"][index]].append(index)
    # One shard's list at a time, because all of them together would need more memory than anything else here.
    for shard in shard_names(dataset.shards):
        yield shard, [_shard_video(columns, index, listed[index], probes, dataset) for index in rows.get(shard, [])]


def _shard_video(
    columns: dict[str, list[Any]], index: int, listed: ListedVideo, probes: Mapping[str, Probe], dataset: Dataset
) -> dict[str, Any]:
    keys = ("id", "path", "content_digest", "num_frames", "frames_per_second", "height", "width")
    video = {key: columns[key][index] for key in keys}
    video["digest"] = video.pop("content_digest")
    images_per_second = dataset.frames_per_second or FORMATS[dataset.format].frames_per_second
    if images_per_second:
        video["images_per_second"] = images_per_second
    probe = probes.get(video["path"])
    if probe is not None and probe.stream:
        video["stream"] = probe.stream
    if listed.trim and listed.start is not None and listed.end is not None:
        frames, rate = video["num_frames"], video["frames_per_second"]
        # Copies of AVA's films are often cut to the annotated minutes already.
        if not (FORMATS[dataset.format].kept_cut and frames and rate and frames / rate < listed.end - listed.start + 2):
            video |= {"start": listed.start, "end": listed.end}
    return video


def _check_share(name: str, dataset: Dataset, columns: dict[str, list[Any]]) -> None:
    """Fail when a larger share of the listed videos is unusable than the configuration allows.

    Raises:
        UserError: the message counts the reasons and shows an example of each.
    """
    counted = Counter(reason_code(reason) for reason in columns["reason"] if reason)
    total, accepted = len(columns["id"]), columns["status"].count(ACCEPTED)
    share = 1 - accepted / total if total else 1.0
    if accepted and share <= dataset.maximum_reject_share:
        return
    example = {
        reason_code(reason): f"{id}: {reason}" for id, reason in zip(columns["id"], columns["reason"], strict=True)
    }
    lines = [f"  - {count} × {code}, e.g. {example[code]}" for code, count in counted.most_common()]
    raise UserError(
        f"{name}: {total - accepted} of {total} listed videos are unusable ({share:.0%}; "
        f"datasets.{name}.maximum_reject_share allows {dataset.maximum_reject_share:.0%}):\n"
        + "\n".join(lines)
        + f"\nLooked in {', '.join(dataset.videos) or 'no folder'}. docs/manifests.md explains the reasons."
    )


def _check_generated(dataset: Dataset) -> None:
    """Refuse damage of generated videos, because it would otherwise be counted as bad videos.

    Only those below an output root are checked: what was generated to somewhere else is the user's, who may change it.

    Raises:
        DamageError: a file is not the one that was generated.
    """
    for marker in (Path(folder) / GENERATED for folder in dataset.videos):
        layout = Layout.above(marker)
        if marker.is_file() and layout is not None and layout.generated(marker.parent.name) == marker.absolute():
            for name, expected in read_sealed_json(marker)["files"].items():
                path = marker.parent / name
                if not path.is_file() or file_digest(path) != expected:
                    raise DamageError(path, f"it is not the file that {GENERATED} names")


def list_videos(name: str, dataset: Dataset) -> tuple[Listing, list[ListedVideo]]:
    """Read the annotations, mark what is unusable, apply the filter; sorted by id.

    Raises:
        UserError: something is not configured, absent or not in the format.
    """
    check_data(f"The manifest of {name}", [name], {name: dataset})
    _check_generated(dataset)
    listing = read_listing(dataset)
    if not listing.videos:
        raise UserError(f"{name}: the annotations list no video ({', '.join(listing.sources) or 'no file'}).")
    listed = [_with_printable_names(video) for video in listing.videos]
    videos = reject_unusable(listed, dataset.num_splits, listing.classes)
    return listing, sorted(apply_filter(videos, dataset.filter), key=lambda video: video.id)


def build_manifest(specification: ManifestSpecification, output: Path, num_workers: int) -> dict[str, Any]:
    """Make ``manifest.parquet``, ``summary.json`` and the shard lists of a data set.

    Args:
        specification: the data set.
        output: folder ``manifests/{dataset}``; probes of earlier runs lie there in ``.probes.sqlite``.
        num_workers: probing processes.

    Returns:
        The summary.

    Raises:
        UserError: annotations or videos are not configured or do not exist, a file is not in its format, or more
            videos are unusable than ``maximum_reject_share`` allows.
    """
    name, dataset = specification.name, specification.dataset
    with Stage("manifest", manifest_modules(dataset), output / SUMMARY) as stage:
        listing, videos = list_videos(name, dataset)
        num_files = 0
        if dataset.probe == "none" and not dataset.videos:
            paths = [video.names[0] if "." in video.names[0] else f"{video.names[0]}.mp4" for video in videos]
        else:
            index = FileIndex(dataset.videos, folders=FORMATS[dataset.format].folders_of_frames)
            replacements = None
            if dataset.replacements:
                replacements = FileIndex(dataset.replacements, folders=FORMATS[dataset.format].folders_of_frames)
            num_files = index.num_files
            paths = match(videos, index, replacements)
        videos, paths = _reject_unwritable(_reject_same_files(videos, paths), paths)
        probes: dict[str, Probe] = {}
        num_cached = 0
        if dataset.probe != "none":
            wanted = [path for path, video in zip(paths, videos, strict=True) if path and not video.reason]
            probes, num_cached = _probe_all(dataset, wanted, output / ".probes.sqlite", num_workers)
        columns = _columns(videos, paths, probes, dataset)
        _check_share(name, dataset, columns)
        identity = filter_identity(dataset.filter)
        classes = listing.classes or sorted({label for video in videos for label in video.labels})
        annotations = source_digests(listing.sources)
        inputs = listed_inputs(listing)
        # A manifest is never taken as finished, because the files in the videos' folders may have changed.
        record = stage.describe(
            manifest_parameters(specification),
            {
                stage.key(listing.sources[name], name) if name in listing.sources else name: inputs[name]
                for name in inputs
            },
            distribution_versions(["av", "pyarrow"]) | {"libavcodec": _libavcodec()},
        )
        stage.begin()
        content = rows_digest(columns, dataset.num_splits, identity)
        status = dict(sorted(Counter(columns["status"]).items()))
        one_sided = _one_sided(columns, dataset.num_splits)
        for line in (*one_sided_lines(one_sided, 10), *skipped_lines(listing.skipped)):
            print(f"{name}: {line}", file=sys.stderr)
        summary = {
            "dataset": name,
            "format": dataset.format,
            "digest": content,
            "num_listed": len(listing.videos),
            "num_left_by_filter": len(videos),
            "status": status,
            "subsets": _counts(columns, dataset.num_splits),
            "reasons": dict(sorted(Counter(reason_code(reason) for reason in columns["reason"] if reason).items())),
            "classes": sorted(classes),
            "filter": identity,
            "annotations": annotations,
            "one_sided_classes": one_sided,
            "skipped_files": listing.skipped,
            "num_boxes": len(listing.boxes),
            "excluded_times": sorted([id, time] for id, time in listing.excluded_times),
            "provenance": record | {"content": content, "counts": status},
        }
        made = [output / MANIFEST]
        for shard, shard_videos in _shard_lists(columns, videos, probes, dataset):
            made.append(output / SHARD_LISTS / f"{shard}.json")
            write_shard_list(made[-1], name, shard, shard_videos)
        if listing.boxes:
            accepted = {id for id, status in zip(columns["id"], columns["status"], strict=True) if status == ACCEPTED}
            made.append(output / BOXES)
            _write_boxes(made[-1], listing.boxes, accepted)
        write_table(output / MANIFEST, pa.table(columns, schema=manifest_schema(dataset.num_splits)))
        write_sealed_json(output / SUMMARY, summary)
        stage.finish(
            {
                "listed": len(videos),
                "files_found": num_files,
                "probed": len(probes) - num_cached,
                "cached": num_cached,
            },
            made,
        )
    return summary
