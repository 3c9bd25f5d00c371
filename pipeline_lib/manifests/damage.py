"""What the structure of a container says about damage, where decoding alone does not tell."""

import struct
from pathlib import Path

CLOCK_GAP_SECONDS = 600.0
"""A video whose clock stands still for longer than this is rejected: at a fixed rate one frame would fill the gap."""


def is_mp4(head: bytes) -> bool:
    """Whether a file's first bytes are those of an MP4 or QuickTime file."""
    return head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")


def is_avi(head: bytes) -> bool:
    """Whether a file's first bytes are those of an AVI."""
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


def mp4_boxes(path: Path, size: int) -> tuple[set[bytes], bool]:
    """Types of an MP4's top-level boxes, and whether the last one is longer than the file."""
    types: set[bytes] = set()
    position = 0
    with open(path, "rb") as file:
        while position + 8 <= size:
            file.seek(position)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1:
                large = file.read(8)
                if len(large) < 8:
                    return types | {kind}, True
                length = struct.unpack(">Q", large)[0]
            elif length == 0:
                length = size - position
            if length < 8:
                break
            types.add(kind)
            position += length
    return types, position > size


def avi_repeats(path: Path, stream: int) -> int:
    """How many chunks of a stream are empty in an AVI.

    Capture programs, XviD and ffmpeg write an empty chunk for a frame that is shown once more. The header counts it,
    and no decoder gives it (OpenDML AVI file format extensions, section 3: "drop frames").

    Args:
        path: the file; nothing is assumed of its content.
        stream: the stream's number in the file.
    """
    wanted = f"{stream:02d}".encode()
    empty = 0
    with open(path, "rb") as file:
        # Lists of chunks are entered, and everything else is stepped over; a file has several RIFF parts beyond 1 GB.
        while len(head := file.read(8)) == 8:
            kind, length = struct.unpack("<4sI", head)
            if kind in (b"RIFF", b"LIST"):
                inside = file.read(4)
                if inside in (b"AVI ", b"AVIX", b"movi", b"rec "):
                    continue
                length -= 4
            elif kind[:2] == wanted and kind[2:] in (b"dc", b"db") and length == 0:
                empty += 1
            if length < 0 or not kind.isascii():
                break
            file.seek(length + length % 2, 1)
    return empty


def asf_size(head: bytes) -> int:
    """Bytes that an ASF file (WMV) declares itself to have; 0 if it does not, or is another kind of file.

    libavformat finds the film's duration only if the file's end is there. The size stands in the file properties object
    behind its id, its length and the file's id (Advanced Systems Format specification, section 3.2).

    Args:
        head: the file's first bytes.
    """
    properties = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
    place = head.find(properties)
    if not head.startswith(bytes.fromhex("3026b2758e66cf11")) or place < 0 or len(head) < place + 48:
        return 0
    return int.from_bytes(head[place + 40 : place + 48], "little")


def clock_gap(seconds: float, num_frames: int) -> str:
    """The reason for a gap of so many seconds after so many frames, or an empty string if it is short enough."""
    if seconds <= CLOCK_GAP_SECONDS:
        return ""
    return f"clock gap: frame {num_frames} comes {seconds:.0f} s after the one before"
