"""Intact videos of unusual kinds give every frame; hostile ones cost one row, and read no other file."""

import math
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from video_corpus import Video, corpus, level

from pipeline_lib.artefacts.digest import file_digest
from pipeline_lib.configuration.data import FrameFormat
from pipeline_lib.configuration.specification import FramesSpecification
from pipeline_lib.errors import UserError
from pipeline_lib.manifests.probing import probe_file
from pipeline_lib.manifests.shard_lists import write_shard_list
from pipeline_lib.media import decoder, frames_stage
from pipeline_lib.media.decoder import DecodingError, DecodingOptions, decode_video
from pipeline_lib.media.ffmpeg import ffmpeg_executable
from pipeline_lib.media.frames_stage import extract_frames, extract_video
from pipeline_lib.media.shards import Shard


def _specification(on_decode_error: str = "reject", **changes: Any) -> FramesSpecification:
    frames = FrameFormat(**({"short_side": 64} | changes))
    return FramesSpecification(dataset="d", frame_format="f", frames=frames, on_decode_error=on_decode_error)


def _ffmpeg(*arguments: str) -> None:
    subprocess.run([ffmpeg_executable(), "-nostdin", "-v", "error", "-y", *arguments], check=True)


def _source(seconds: float = 2.0, size: str = "96x64", rate: int = 30) -> list[str]:
    return ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}"]


def _num_frames(path: Path, **changes: Any) -> int:
    return len(extract_video({"id": "v", "path": str(path)}, _specification(**changes)).frames)


# Clocks as browsers (milliseconds), phones (90 kHz) and joined recordings have them: two frames lie closer together
# than one tick of the nominal rate.
CLOCKS = {
    "browser.webm": (1000, "N*33+16*sin(N*1.7)+16", ["-c:v", "libvpx"]),
    "phone.mp4": (90000, "90000*(N/30+0.012*sin(N*2.3)+0.012)", ["-c:v", "libx264", "-bf", "0"]),
    "joined.mkv": (1000, "if(lt(N,24),N*1000/24,1000+(N-24)*1000/60)", ["-c:v", "libx264"]),
    "phone.3gp": (1000, "N*40+16*sin(N*2.1)+16", ["-c:v", "mpeg4"]),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_a_variable_rate_gives_every_frame_once_at_the_native_rate(tmp_path: Path, name: str) -> None:
    ticks, clock, codec = CLOCKS[name]
    path = tmp_path / name
    times = f"settb=1/{ticks},setpts='{clock}'"
    more = ["-video_track_timescale", str(ticks)] if path.suffix in (".mp4", ".3gp") else []
    _ffmpeg(
        *(*_source(), "-vf", times, "-fps_mode", "passthrough", "-enc_time_base", f"1/{ticks}"),
        *(*codec, "-pix_fmt", "yuv420p", *more, str(path)),
    )
    assert probe_file(path, decode=True).num_frames == 60
    assert _num_frames(path) == 60


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_an_avi_with_empty_chunks_is_whole_and_a_cut_one_is_not(tmp_path: Path, codec: str) -> None:
    """25 frames a second stored as 30, as in JHMDB: one chunk in six is empty."""
    path = tmp_path / "a.avi"
    times = "settb=1/30,setpts=floor(N*6/5)"
    _ffmpeg(
        *(*_source(seconds=4, rate=25), "-vf", times, "-fps_mode", "passthrough", "-enc_time_base", "1/30"),
        *("-c:v", codec, "-q:v", "3", str(path)),
    )
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 110
    probe = probe_file(path, decode=True)
    assert (probe.num_frames, probe.problem) == (100, "")
    assert _num_frames(path) == 100
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10])
    assert probe_file(path, decode=True).problem.startswith("truncated: ")


def test_a_size_that_changes_on_the_way_gives_the_count_of_the_fixed_rate(tmp_path: Path) -> None:
    """Many changes, none of them at a multiple of the rate: the count follows the clock, as if the size were one."""
    sizes = ["96x64", "64x48", "96x64", "48x96", "64x48", "32x32"]
    parts = []
    for index, size in enumerate(sizes):
        part = tmp_path / f"{index}.h264"
        _ffmpeg(*_source(seconds=0.3667, size=size), "-c:v", "libx264", "-bf", "0", "-pix_fmt", "yuv420p", str(part))
        parts.append(part.read_bytes())
    (tmp_path / "all.h264").write_bytes(b"".join(parts))
    path = tmp_path / "all.mkv"
    _ffmpeg("-r", "30", "-i", str(tmp_path / "all.h264"), "-c", "copy", str(path))
    with av.open(str(path)) as container:
        num_frames = sum(1 for _ in container.decode(video=0))
    assert num_frames > 60 and _num_frames(path) == num_frames
    for rate in (12.0, 24.0, 25.0, 60.0):
        video = extract_video({"id": "v", "path": str(path)}, _specification(frames_per_second=rate))
        assert abs(len(video.frames) - num_frames / 30 * rate) <= 1, rate
        shapes = {simplejpeg.decode_jpeg_header(frame)[:2] for frame in video.frames}
        assert shapes == {(video.height, video.width)} == {(64, 96)}


def test_a_gap_of_hours_in_the_clock_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "gap.mp4"
    clock = "setpts='PTS+if(gte(N,25),21600,0)/TB'"
    _ffmpeg(*_source(rate=25), "-vf", clock, "-fps_mode", "passthrough", "-c:v", "libx264", str(path))
    assert probe_file(path, decode=True).problem == "clock gap: frame 25 comes 21600 s after the one before"
    began = time.monotonic()
    with pytest.raises(DecodingError, match="clock gap: frame 25 comes 21600 s after the one before"):
        extract_video({"id": "v", "path": str(path)}, _specification(frames_per_second=25.0))
    assert time.monotonic() - began < 10
    # At the native rate nothing is filled.
    assert _num_frames(path) == 50


def _playlists(folder: Path) -> dict[str, Path]:
    """Files called .mp4 that name other files, among them one that repeats a video 500 times."""
    private = folder / "private"
    private.mkdir()
    _ffmpeg(*_source(seconds=1, size="64x64"), "-c:v", "libx264", "-pix_fmt", "yuv420p", str(private / "secret.ts"))
    _ffmpeg("-i", str(private / "secret.ts"), "-c", "copy", str(private / "secret.mp4"))
    (folder / "near.mp4").write_bytes((private / "secret.mp4").read_bytes())
    adaptive = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" minBufferTime="PT1S">'
        '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" width="64" height="64" '
        'codecs="avc1.64001f"><BaseURL>'
        f'{private}/secret.mp4</BaseURL><SegmentBase indexRange="0-100"/>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    texts = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{private}/secret.ts\n#EXT-X-ENDLIST\n",
        "dash": adaptive,
        "bomb": "ffconcat version 1.0\n" + "file near.mp4\n" * 500,
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    }
    paths = {name: folder / f"{name}.mp4" for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name])
    return paths


def test_a_playlist_called_mp4_opens_no_other_file(tmp_path: Path) -> None:
    for name, path in _playlists(tmp_path).items():
        began = time.monotonic()
        assert probe_file(path, decode=True).problem.startswith("not a video"), name
        for mode in ("reject", "keep"):
            with pytest.raises(DecodingError, match="ffmpeg gives no frame"):
                extract_video({"id": name, "path": str(path)}, _specification(mode))
        assert time.monotonic() - began < 10, name


def test_every_reader_of_files_names_protocols_and_formats(repository: Path) -> None:
    """A call of ffmpeg or PyAV that opens a file by its name must say what it accepts."""
    for path in sorted((repository / "pipeline_lib").rglob("*.py")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "av.open(" in line and '"w"' not in line and "``" not in line:
                assert "options=" in line, f"{path.name}: {line.strip()}"
        text = path.read_text(encoding="utf-8")
        if '"-i"' in text:
            # A pipe's format is named; nothing is guessed from its content.
            assert "reading_arguments" in text or '"-f", "rawvideo"' in text, path.name
    command = decoder.decoding_command(Path("a.mp4"), DecodingOptions(64))
    before = command[: command.index("-i")]
    assert "-protocol_whitelist" in before and "-format_whitelist" in before
    formats = before[before.index("-format_whitelist") + 1].split(",")
    assert not {"hls", "dash", "concat", "imf", "sdp", "rtsp", "image2", "lavfi", "avisynth", "tty"} & set(formats)


def test_frames_memory_and_time_of_one_video_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    _ffmpeg(*_source(seconds=4), "-c:v", "libx264", "-pix_fmt", "yuv420p", str(path))
    video = {"id": "v", "path": str(path)}
    with monkeypatch.context() as change:
        change.setattr(frames_stage, "_MAXIMUM_FRAMES", 50)
        with pytest.raises(DecodingError, match="too long: more than 50 frames"):
            extract_video(video, _specification())
    with monkeypatch.context() as change:
        change.setattr(frames_stage, "_MAXIMUM_BYTES", 20_000)
        with pytest.raises(DecodingError, match="too long: its frames take more than"):
            extract_video(video, _specification())
    with monkeypatch.context() as change:
        change.setattr(frames_stage, "_MAXIMUM_SIDE", 90)
        with pytest.raises(DecodingError, match="too large: 96×64"):
            extract_video(video, _specification())
    with monkeypatch.context() as change:
        # Not enough memory to start.
        change.setattr(decoder, "_MEMORY_BYTES", 1 << 20)
        change.setattr(decoder, "_MEMORY_BYTES_PER_THREAD", 0)
        with pytest.raises(DecodingError):
            extract_video(video, _specification())
    script = tmp_path / "ffmpeg"
    script.write_text(
        "#!/bin/sh\nprintf 'YUV4MPEG2 W4 H4 F25:1\\n'\n"
        "while :; do printf 'FRAME\\n'; printf '%024d' 0; sleep 0.05; done\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(decoder, "decoding_command", lambda *_: [str(script)])
    began = time.monotonic()
    with pytest.raises(DecodingError, match=r"not finished within 0\.5 s"):
        with decode_video(path, DecodingOptions(64, total_seconds=0.5)) as raw:
            for _ in raw:
                pass
    assert time.monotonic() - began < 5


def test_a_killed_decoder_is_no_verdict_on_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\nkill -KILL $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(decoder, "decoding_command", lambda *_: [str(script)])
    with pytest.raises(UserError, match="ffmpeg was killed while it decoded"):
        with decode_video(tmp_path, DecodingOptions(64)) as raw:
            list(raw)


def test_other_bytes_than_the_manifest_found_are_rejected(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.mp4" for name in ("same", "swapped", "sampled")]
    for file in files:
        _ffmpeg(*_source(seconds=0.5), "-c:v", "libx264", "-pix_fmt", "yuv420p", str(file))
    digests = [probe_file(file, decode=file.stem != "sampled").content_digest for file in files]
    assert digests[0] == file_digest(files[0]) and digests[2].startswith("sampled-")
    _ffmpeg(*_source(seconds=0.4), "-c:v", "libx264", "-pix_fmt", "yuv420p", str(files[1]))
    rows = [{"id": file.stem, "path": str(file), "digest": digest} for file, digest in zip(files, digests, strict=True)]
    shard_list = tmp_path / "000.json"
    write_shard_list(shard_list, "d", "000", rows)
    extract_frames(_specification(), shard_list, tmp_path / "000.h5", 2)
    shard = Shard(tmp_path / "000.h5")
    assert [video.id for video in shard.videos] == ["same", "sampled"]
    assert shard.rejected["swapped"].startswith("changed: its bytes are not those that the manifest found")


def test_images_that_changed_since_the_manifest_are_rejected(tmp_path: Path) -> None:
    folder = tmp_path / "17"
    folder.mkdir()
    _ffmpeg(*_source(seconds=0.5), "-q:v", "2", str(folder / "%05d.jpg"))
    video = {"id": "v", "path": str(folder), "digest": probe_file(folder, decode=True).content_digest}
    assert len(extract_video(video, _specification()).frames) == 15
    (folder / "00003.jpg").write_bytes((folder / "00001.jpg").read_bytes() + b" ")
    with pytest.raises(DecodingError, match="changed: "):
        extract_video(video, _specification())


def test_a_file_that_is_written_while_it_is_decoded_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    _ffmpeg(*_source(seconds=0.5), "-c:v", "libx264", "-pix_fmt", "yuv420p", str(path))
    encode = frames_stage._encode

    def encode_and_touch(*arguments: Any) -> list[bytes]:
        frames = encode(*arguments)
        os.utime(path)
        return frames

    monkeypatch.setattr(frames_stage, "_encode", encode_and_touch)
    with pytest.raises(DecodingError, match="changed: the file was written while it was decoded"):
        extract_video({"id": "v", "path": str(path)}, _specification())


def test_a_pipe_and_a_file_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(DecodingError, match="not a video: it is a pipe"):
        extract_video({"id": "v", "path": str(tmp_path / "pipe.mp4")}, _specification())

    def stale(*_: object) -> str:
        raise OSError(116, "Stale file handle")

    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    monkeypatch.setattr(frames_stage, "digest_as", stale)
    with pytest.raises(UserError, match=r"cannot be read: Stale file handle\. Run the same command again"):
        extract_video({"id": "v", "path": str(path), "digest": "d"}, _specification())


@pytest.mark.parametrize("container", ["mkv", "mp4"])
@pytest.mark.parametrize("order", [("small", "film"), ("film", "small")])
def test_of_two_pictures_the_one_that_players_take(tmp_path: Path, container: str, order: tuple[str, str]) -> None:
    """The default stream, then the larger one; a stream of one frame is no film, whatever its flags."""
    _ffmpeg(*_source(seconds=1, size="48x32"), "-c:v", "libx264", "-pix_fmt", "yuv420p", str(tmp_path / "small.mp4"))
    _ffmpeg(*_source(seconds=1, size="96x64"), "-c:v", "libx264", "-pix_fmt", "yuv420p", str(tmp_path / "film.mp4"))
    _ffmpeg(*_source(seconds=1, size="640x480"), "-frames:v", "1", "-c:v", "libx264", str(tmp_path / "cover.mp4"))
    inputs = [word for name in order for word in ("-i", str(tmp_path / f"{name}.mp4"))]
    path = tmp_path / f"both.{container}"
    maps = ["-map", "0:v", "-map", "1:v", "-c", "copy"]

    def size(of: Path) -> tuple[int | None, int | None, int | None]:
        probe = probe_file(of, decode=True)
        video = extract_video({"id": "v", "path": str(of), "stream": probe.stream}, _specification(short_side=64))
        assert (video.height, video.width) == (probe.height, probe.width)
        return probe.num_frames, probe.height, probe.width

    both = ["-disposition:v:0", "default", "-disposition:v:1", "default"]
    _ffmpeg(*inputs, *maps, *both, str(path))
    assert size(path) == (30, 64, 96)
    chosen = str(order.index("small"))
    one = ["-disposition:v", "0", f"-disposition:v:{chosen}", "default"]
    _ffmpeg(*inputs, *maps, *one, str(path))
    assert size(path) == (30, 32, 48)
    if container == "mp4":
        _ffmpeg("-i", str(tmp_path / "cover.mp4"), "-i", str(tmp_path / "film.mp4"), *maps, *both, str(path))
        assert size(path) == (30, 64, 96)


def test_colours_do_not_depend_on_which_picture_is_the_film(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    red = ["-f", "lavfi", "-i", "color=red:size=32x32:rate=25:duration=0.4"]
    blue = ["-f", "lavfi", "-i", "color=blue:size=64x64:rate=25:duration=0.4"]
    _ffmpeg(*red, *blue, "-map", "0:v", "-map", "1:v", "-c:v", "ffv1", "-disposition:v", "0", str(path))
    stream = probe_file(path, decode=True).stream
    assert stream == 1
    video = extract_video({"id": "v", "path": str(path), "stream": stream}, _specification())
    assert np.abs(simplejpeg.decode_jpeg(video.frames[0])[0, 0].astype(int) - (0, 0, 255)).max() <= 6


def _fault_of(video: Video, folder: Path) -> str:
    """What probe or frames say of a video of the corpus that is not right; empty if all is."""
    path = video.make(folder)
    probe = probe_file(path, decode=True)
    row = {"id": "v", "path": str(path), "stream": probe.stream, "digest": probe.content_digest}
    if video.num_frames is None:
        right = bool(probe.problem) and probe.problem.startswith(video.reason)
        return "" if right else f"{probe.num_frames} frames, problem {probe.problem!r}, wanted {video.reason!r}"
    if probe.problem or (probe.num_frames, probe.height, probe.width) != (video.num_frames, *video.size):
        return f"probe: {probe}"
    if video.rate is not None and not math.isclose(probe.frames_per_second or 0, video.rate, rel_tol=0.01):
        return f"{probe.frames_per_second} frames a second, not {video.rate}"
    encoded = extract_video(row, _specification(short_side=4096, jpeg_quality=100))
    if (len(encoded.frames), encoded.height, encoded.width) != (video.num_frames, *video.size):
        return f"frames: {len(encoded.frames)} of {encoded.height}×{encoded.width}"
    if min(video.size) < 16:
        return ""
    height, width = video.size
    for number, jpeg in enumerate(encoded.frames):
        picture = simplejpeg.decode_jpeg(jpeg).astype(int)
        middle = picture[height // 2 - 3 : height // 2 + 3, width // 2 - 3 : width // 2 + 3].mean()
        if abs(middle - level(video.first + number)) > max(3.4, (video.tolerance or 0) / 4):
            return f"frame {number} has the grey {middle:.1f}, not {level(video.first + number)}"
        if video.tolerance is None:
            continue
        # The middles of the quarters' outer halves, away from every edge.
        rows, columns = (height // 8, height - 1 - height // 8), (width // 8, width - 1 - width // 8)
        for corner, (y, x) in enumerate((y, x) for y in rows for x in columns):
            off = np.abs(picture[y, x] - video.expected_colour(corner)).max()
            if off > video.tolerance:
                return f"frame {number}, corner {corner}: {picture[y, x]}, not {video.expected_colour(corner)}"
    return ""


def test_every_kind_of_video_gives_its_frames_size_rate_and_colours(tmp_path: Path) -> None:
    """The right values are those of the film that was encoded, in closed form, and not another reader's."""
    videos = corpus()
    assert len(videos) >= 150 and len({video.name for video in videos}) == len(videos)
    folders = [tmp_path / str(number) for number in range(len(videos))]
    for folder in folders:
        folder.mkdir()

    def check(video: Video, folder: Path) -> str:
        try:
            return _fault_of(video, folder)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(check, videos, folders))
    faults = [f"{video.name}: {fault}" for video, fault in zip(videos, found, strict=True) if fault]
    assert not faults, "\n".join(faults)
