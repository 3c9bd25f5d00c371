"""Finding the listed videos among the files that lie on disk."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from os.path import normpath
from pathlib import Path

from pipeline_lib.errors import UserError
from pipeline_lib.manifests.schema import ListedVideo
from pipeline_lib.manifests.text_files import composed

VIDEO_ENDINGS = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp"})
YOUTUBE_ID_LENGTH = 11


def is_hidden(name: str) -> bool:
    """Whether a file or folder is skipped because of its name.

    Skipped are hidden names, among them the ``._*`` files that macOS leaves beside each copied file, and
    ``lost+found``, in which a file system keeps damaged files and which only root may read.
    """
    return name.startswith(".") or name == "lost+found"


def split_ending(name: str) -> tuple[str, str]:
    """A file's name without its ending, and the ending in lower case with its dot (empty if there is none).

    The same as ``os.path.splitext`` for such names, and cheap enough for half a million of them.
    """
    stem, dot, ending = name.rpartition(".")
    return (stem, dot + ending.lower()) if stem and "/" not in ending else (name, "")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a folder or leads to one; a link that leads to itself does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _walk(root: str) -> Iterable[tuple[str, bool]]:
    """Paths of the videos (False) and folders (True) below a folder, sorted within each folder.

    Links to folders are followed, except a link to a folder that contains it, which would never end.

    Raises:
        UserError: a folder cannot be read. Skipping it would count its videos as missing.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        subfolders = []
        try:
            with os.scandir(folder) as entries:
                found = sorted(
                    (entry.name, _is_folder(entry), entry.is_symlink())
                    for entry in entries
                    if not is_hidden(entry.name)
                )
        except OSError as error:
            raise UserError(f"{folder} cannot be searched for videos: {error.strerror}.") from error
        for name, is_folder, is_link in found:
            path = f"{folder}/{name}"
            if is_folder:
                if is_link and Path(folder).resolve().is_relative_to(Path(path).resolve()):
                    continue
                subfolders.append(path)
                yield path, True
            elif split_ending(name)[1] in VIDEO_ENDINGS:
                yield path, False
        waiting.extend(reversed(subfolders))


def _spelling(label: str) -> str:
    """A class name as folders spell it: spaces or underscores, any case, no brackets or quotes."""
    return "".join(c for c in composed(label).lower().replace(" ", "_") if c not in "()'\"")


class FileIndex:
    """The videos (or frame folders) below some folders, by path and by name.

    Args:
        roots: folders, searched in this order; the first hit wins.
        folders: index folders instead of files, for data sets that come as frames.
    """

    def __init__(self, roots: Sequence[str], folders: bool = False) -> None:
        self.roots = [str(Path(root)) for root in roots]
        self.folders = folders
        self._paths: dict[str, str] = {}
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self.num_files = 0
        for root in self.roots:
            for path, is_folder in _walk(root):
                if is_folder != folders:
                    continue
                self.num_files += 1
                # Lists and disks may spell an accented letter in different Unicode forms; an equal one comes first.
                self._paths[path] = path
                self._paths.setdefault(composed(path), path)
                name = composed(path.rsplit("/", 1)[1])
                self._by_stem[name if folders else split_ending(name)[0]].append(path)
        self._by_prefix: dict[str, list[str]] | None = None

    def find(self, name: str, labels: Sequence[str] = ()) -> str | None:
        """Path of a video by a relative path (with or without its ending) or a bare name, or None.

        A relative path must match as a whole, at the end of a file's path. Of several files with one bare name, the
        one in a folder called like a label is preferred, then the first in the order of the roots.
        """
        if "/" in name:
            for root in self.roots:
                path = normpath(name if name.startswith("/") else f"{root}/{name}")
                found = self._paths.get(path) or self._paths.get(composed(path))
                if found is not None:
                    return found
        name = composed(name)
        stem, ending = split_ending(name)
        if self.folders or ending not in VIDEO_ENDINGS:
            stem = name
        folder, _, bare = stem.rpartition("/")
        candidates = self._by_stem.get(bare, [])
        if folder:
            tail = "/" + folder.strip("/").removeprefix("./")
            candidates = [path for path in candidates if composed(path.rsplit("/", 1)[0]).endswith(tail)]
        if len(candidates) > 1:
            spelled = {_spelling(label) for label in labels}
            for path in candidates:
                if _spelling(path.rsplit("/", 2)[-2]) in spelled:
                    return path
        return candidates[0] if candidates else None

    def find_by_youtube_id(self, youtube_id: str) -> str | None:
        """The file whose name begins with a YouTube id (11 characters); None if there is none, or more than one."""
        if self._by_prefix is None:
            self._by_prefix = defaultdict(list)
            for stem, paths in self._by_stem.items():
                self._by_prefix[stem[:YOUTUBE_ID_LENGTH]] += paths
        found = self._by_prefix.get(youtube_id[:YOUTUBE_ID_LENGTH], [])
        return found[0] if len(found) == 1 else None


def match(listed: Sequence[ListedVideo], files: FileIndex, replacements: FileIndex | None = None) -> list[str]:
    """Paths of the videos, in their order; empty where nothing was found.

    A video's names are tried in their order. A replacement is preferred to the file that it replaces. It is found by
    the video's first name, or by the first 11 characters of it if exactly one replacement and one listed video have
    them.

    Args:
        listed: the videos to find.
        files: what lies in the video folders.
        replacements: what lies in the folders of replacements.
    """
    times_prefix: dict[str, int] = defaultdict(int)
    for video in listed:
        times_prefix[video.names[0][:YOUTUBE_ID_LENGTH]] += 1
    result = []
    for video in listed:
        path = None
        if replacements is not None:
            path = replacements.find(video.names[0], video.labels)
            if path is None and times_prefix[video.names[0][:YOUTUBE_ID_LENGTH]] == 1:
                path = replacements.find_by_youtube_id(video.names[0])
        for name in video.names:
            if path is None:
                path = files.find(name, video.labels)
        result.append(path or "")
    return result
