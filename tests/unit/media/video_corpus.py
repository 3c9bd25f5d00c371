"""Some two hundred small videos of every kind, each with what is right of it in closed form.

Every video shows the same film: four flat quarters and a square in the middle whose grey says the number of the frame.
So the number of frames, their order, size, orientation and colours are known without any reader.
"""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline_lib.media.ffmpeg import ffmpeg_executable

NUM_FRAMES = 24
RATE = 24
HEIGHT, WIDTH = 48, 64
# The quarters from left to right and down, as a viewer sees them without rotation.
QUARTERS = ((190, 60, 50), (60, 170, 80), (50, 70, 180), (130, 130, 130))
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
_READ = ("-nostdin", "-v", "error", "-y")


def level(frame: int) -> int:
    """The grey of the square in a frame's middle."""
    return 40 + 7 * frame


def film(height: int = HEIGHT, width: int = WIDTH, num_frames: int = NUM_FRAMES) -> npt.NDArray[np.uint8]:
    """The film: uint8 (T, H, W, 3) RGB."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:, : height // 2, : width // 2] = QUARTERS[0]
    frames[:, : height // 2, width // 2 :] = QUARTERS[1]
    frames[:, height // 2 :, : width // 2] = QUARTERS[2]
    frames[:, height // 2 :, width // 2 :] = QUARTERS[3]
    for frame in range(num_frames):
        frames[frame, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = level(frame)
    return frames


@dataclass(frozen=True)
class Video:
    """A video and what is right of it.

    Attributes:
        name: of its file; unique.
        output: ffmpeg's options of the output.
        num_frames: that decode; None if the manifest must reject the video.
        size: height and width as displayed, pixels.
        turns: clockwise quarter turns that a viewer sees.
        rate: frames per second; None if the container states none or a nominal one.
        tolerance: levels by which a colour may differ. None: the colours are not looked at.
        first: the number of the first frame that is shown.
        inputs: ffmpeg's further inputs and, in front, options of the film's own input.
        before: options of the film's input.
        again: commands that make the final file from the one before, as options with ``{}`` for the file before.
        cut: the share of the bytes that is left; None leaves all.
        reason: what the manifest's reason begins with, of a video that it must reject; empty takes any.
        content: bytes in place of a video.
    """

    name: str
    output: Sequence[str] = ()
    num_frames: int | None = NUM_FRAMES
    size: tuple[int, int] = (HEIGHT, WIDTH)
    turns: int = 0
    rate: float | None = RATE
    tolerance: int | None = 10
    first: int = 0
    before: Sequence[str] = ()
    inputs: Sequence[str] = ()
    again: Sequence[Sequence[str]] = field(default=())
    cut: float | None = None
    reason: str = ""
    content: bytes | None = None

    def make(self, folder: Path) -> Path:
        """Write the video; returns its path."""
        path = folder / self.name
        if self.content is not None:
            path.write_bytes(self.content)
            return path
        turned = self.turns % 2 == 1
        # The film is stored as it is; a flag turns it. So its size is the displayed one turned back.
        height, width = self.size[::-1] if turned else self.size
        # Several files are made in one folder at the same time.
        steps = [path if not self.again else folder / f"0-{self.name}"]
        source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}", "-framerate", str(RATE))
        command = [ffmpeg_executable(), *_READ, *self.before, *source, "-i", "pipe:0", *self.inputs, *self.output]
        count = NUM_FRAMES if self.num_frames is None else max(NUM_FRAMES, self.num_frames)
        _run([*command, f"file:{steps[0]}"], film(height, width, count).tobytes())
        for number, options in enumerate(self.again, 1):
            steps.append(path if number == len(self.again) else folder / f"{number}-{self.name}")
            words = [word.replace("{}", f"file:{steps[-2]}") for word in options]
            _run([ffmpeg_executable(), *_READ, *words, f"file:{steps[-1]}"], b"")
        for step in steps[:-1]:
            step.unlink()
        if self.cut is not None:
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * self.cut)])
        return path

    def expected_colour(self, corner: int) -> tuple[int, int, int]:
        """RGB of the quarter that a viewer sees at a corner (0 … 3, from left to right and down)."""
        # Corners around the picture, clockwise from the upper left.
        around = (0, 1, 3, 2)
        return QUARTERS[around[(around.index(corner) - self.turns) % 4]]


def _run(command: Sequence[str], content: bytes) -> None:
    done = subprocess.run(command, input=content, capture_output=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode(errors='replace')}"


def _codecs() -> Iterator[Video]:
    lossy: dict[str, Sequence[str]] = {
        **{f"h264.{ending}": H264 for ending in ("mp4", "mov", "m4v", "mkv", "avi", "flv", "ts", "3gp", "nut", "f4v")},
        **{f"mpeg4.{ending}": ("-c:v", "mpeg4", "-q:v", "2") for ending in ("mp4", "mov", "mkv", "avi", "asf", "nut")},
        **{
            f"mjpeg.{ending}": ("-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p")
            for ending in ("mov", "avi", "mkv")
        },
        **{f"mpeg2.{ending}": ("-c:v", "mpeg2video", "-q:v", "2") for ending in ("mpg", "ts", "vob", "mkv", "m2ts")},
        "hevc.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none", "-tag:v", "hvc1", "-pix_fmt", "yuv420p"),
        "hevc.mkv": ("-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p"),
        "av1.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8", "-pix_fmt", "yuv420p"),
        "av1.webm": ("-c:v", "libaom-av1", "-cpu-used", "8", "-pix_fmt", "yuv420p"),
        "vp8.webm": ("-c:v", "libvpx", "-b:v", "2M"),
        "vp9.webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "2M", "-pix_fmt", "yuv420p"),
        "vp9.mp4": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "2M", "-pix_fmt", "yuv420p"),
        "vp8.ivf": ("-c:v", "libvpx", "-b:v", "2M"),
        "theora.ogv": ("-c:v", "libtheora", "-q:v", "10"),
        "sorenson.flv": ("-c:v", "flv1", "-q:v", "2"),
        "wmv1.wmv": ("-c:v", "wmv1", "-q:v", "2"),
        "wmv2.wmv": ("-c:v", "wmv2", "-q:v", "2"),
        "msmpeg4.avi": ("-c:v", "msmpeg4", "-q:v", "2"),
        "msmpeg4v2.avi": ("-c:v", "msmpeg4v2", "-q:v", "2"),
        "xvid.avi": ("-c:v", "libxvid", "-q:v", "2"),
        "mpeg1.mpg": ("-c:v", "mpeg1video", "-q:v", "2"),
        "prores.mov": (
            "-c:v",
            "prores_ks",
        ),
        "jpeg2000.mov": ("-c:v", "jpeg2000", "-pix_fmt", "yuv444p"),
        "asv2.avi": ("-c:v", "asv2", "-q:v", "2"),
        "snow.avi": ("-c:v", "snow", "-q:v", "2", "-pix_fmt", "yuv420p"),
        "svq1.mov": ("-c:v", "svq1", "-q:v", "2"),
        "rv20.rm": ("-c:v", "rv20", "-q:v", "2"),
        "mpeg2.mxf": ("-c:v", "mpeg2video", "-q:v", "2"),
        "cfhd.mov": (
            "-c:v",
            "cfhd",
        ),
    }
    for name, output in lossy.items():
        loose = name.split(".")[0] in (
            "svq1",
            "asv2",
            "rv20",
            "snow",
            "msmpeg4",
            "msmpeg4v2",
            "wmv1",
            "wmv2",
            "sorenson",
        )
        yield Video(f"codec-{name}", output, tolerance=24 if loose else 14, rate=None if "rm" in name else RATE)
    exact = {
        **{f"ffv1.{ending}": ("-c:v", "ffv1") for ending in ("mkv", "avi", "nut", "mov")},
        "huffyuv.avi": ("-c:v", "huffyuv", "-pix_fmt", "yuv422p"),
        "ffvhuff.mkv": ("-c:v", "ffvhuff", "-pix_fmt", "yuv444p"),
        "utvideo.avi": ("-c:v", "utvideo", "-pix_fmt", "gbrp"),
        "magicyuv.avi": ("-c:v", "magicyuv", "-pix_fmt", "gbrp"),
        "raw.avi": ("-c:v", "rawvideo", "-pix_fmt", "bgr24"),
        "raw.mov": ("-c:v", "rawvideo", "-pix_fmt", "rgb24"),
        "raw.nut": ("-c:v", "rawvideo", "-pix_fmt", "yuv420p"),
        "png.mov": ("-c:v", "png"),
        "qtrle.mov": ("-c:v", "qtrle"),
        "zlib.avi": ("-c:v", "zlib"),
        "zmbv.avi": ("-c:v", "zmbv"),
        "yuv.y4m": ("-c:v", "rawvideo", "-pix_fmt", "yuv444p"),
        "picture.apng": ("-c:v", "apng", "-plays", "1"),
        "x264rgb.mkv": ("-c:v", "libx264rgb", "-qp", "0"),
    }
    for name, words in exact.items():
        yield Video(f"codec-{name}", words, tolerance=8, rate=RATE)
    yield Video("codec-picture.gif", ("-c:v", "gif"), tolerance=30, rate=None)


def _pictures() -> Iterator[Video]:
    """Pixel formats, colour matrices and ranges, depths, sizes, rotation."""
    for pixels in (
        *("yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuv440p", "yuv410p", "yuva420p", "yuva422p", "yuva444p"),
        *("yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv422p16le", "yuv444p16le", "bgr0", "bgra"),
        *("gbrp", "gbrp10le", "gbrp16le"),
    ):
        yield Video(f"pixels-{pixels}.mkv", ("-c:v", "ffv1", "-pix_fmt", pixels))
    yield Video("pixels-gray.mkv", ("-c:v", "ffv1", "-pix_fmt", "gray"), tolerance=None)
    yield Video("pixels-gray10.mkv", ("-c:v", "ffv1", "-pix_fmt", "gray10le"), tolerance=None)
    yield Video("pixels-pal8.mov", ("-c:v", "png", "-pix_fmt", "pal8"), tolerance=30)
    for depth in ("yuv420p10le", "yuv422p", "yuv444p", "yuvj420p"):
        yield Video(f"pixels-h264-{depth}.mp4", ("-c:v", "libx264", "-pix_fmt", depth))
    yield Video("pixels-alpha.webm", ("-c:v", "libvpx", "-b:v", "2M", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0"))
    yield Video("pixels-alpha-prores.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuva444p10le"))
    for matrix, scale in (
        *(("bt709", "bt709"), ("smpte170m", "bt601"), ("bt470bg", "bt601"), ("smpte240m", "smpte240m"), ("fcc", "fcc")),
        ("bt2020nc", "bt2020"),
    ):
        for span in ("tv", "pc"):
            filters = (
                f"scale=out_color_matrix={scale}:out_range={span}:flags=accurate_rnd+full_chroma_int,format=yuv444p"
            )
            tags = ("-colorspace", matrix, "-color_range", span, "-color_primaries", "bt709", "-color_trc", "bt709")
            yield Video(f"matrix-{matrix}-{span}.mkv", ("-vf", filters, "-c:v", "ffv1", *tags), tolerance=6)
            yield Video(
                f"matrix-{matrix}-{span}.mp4", ("-vf", filters, "-c:v", "libx264", "-qp", "4", *tags), tolerance=8
            )
    for angle, turns in ((90, 3), (180, 2), (270, 1)):
        size = (WIDTH, HEIGHT) if turns % 2 else (HEIGHT, WIDTH)
        turn = (("-display_rotation", str(angle), "-i", "{}", "-c", "copy"),)
        for ending in ("mp4", "mov"):
            yield Video(f"turned-{angle}.{ending}", H264, size=size, turns=turns, again=turn)
    for height, width in (
        (2, 2),
        (2, 40),
        (40, 2),
        (16, 16),
        (17, 31),
        (33, 47),
        (48, 65),
        (63, 64),
        (1, 64),
        (128, 16),
    ):
        yield Video(
            f"size-{height}x{width}.mkv", ("-c:v", "ffv1", "-pix_fmt", "yuv444p"), size=(height, width), tolerance=None
        )
    for height, width in ((16, 16), (34, 46), (48, 66), (200, 16)):
        yield Video(f"size-{height}x{width}.mp4", (*H264, "-qp", "4"), size=(height, width), tolerance=None)
    for shape in ("4/3", "8/9", "16/11"):
        yield Video(f"aspect-{shape.replace('/', '-')}.mp4", ("-vf", f"setsar={shape}", *H264))


def _clocks() -> Iterator[Video]:
    """Rates, groups of pictures, edit lists, starts other than 0, and headers that are written before the film ends."""
    for rate in ("1", "5", "12", "23.976", "25", "29.97", "30", "50", "60", "120"):
        number = {"23.976": "24000/1001", "29.97": "30000/1001"}.get(rate, rate)
        yield Video(f"rate-{rate}.mp4", H264, before=("-r", number), rate=float(rate))
        yield Video(f"rate-{rate}.mkv", H264, before=("-r", number), rate=float(rate))
    for name, clock in {
        "jitter": "N/24/TB+0.4*sin(N*1.7)/24/TB",
        "slower": "if(lt(N,12),N/48,12/48+(N-12)/12)/TB",
        "pause": "(N/24+if(gte(N,12),3,0))/TB",
        "pairs": "(floor(N/2)/12+mod(N,2)*0.004)/TB",
    }.items():
        for ending in ("mp4", "mkv"):
            options = (
                "-vf",
                f"settb=1/90000,setpts='{clock}'",
                "-fps_mode",
                "passthrough",
                "-enc_time_base",
                "1/90000",
            )
            yield Video(f"clock-{name}.{ending}", (*options, *H264, "-bf", "0"), rate=None)
    gap = ("-vf", "setpts='PTS+if(gte(N,10),7200,0)/TB'", "-fps_mode", "passthrough")
    for ending in ("mp4", "mkv", "mov"):
        yield Video(f"clock-gap.{ending}", (*gap, *H264), num_frames=None, reason="clock gap")
    groups = {
        "one-intra": ("-g", "250", "-bf", "3"),
        "all-intra": ("-g", "1"),
        "open": ("-g", "6", "-bf", "2", "-x264-params", "open-gop=1:keyint=6:min-keyint=6"),
        "no-b": ("-g", "12", "-bf", "0"),
        "interlaced": ("-flags", "+ildct+ilme", "-x264-params", "interlaced=1"),
        "intra-refresh": ("-x264-params", "intra-refresh=1:keyint=10"),
        "slices": ("-slices", "3"),
    }
    for name, options in groups.items():
        yield Video(f"group-{name}.mp4", (*H264, *options))
        yield Video(f"group-{name}.ts", (*H264, *options), rate=None)
    # Cut at a picture that is not a key picture: the packets before it stay in the file, and an edit list hides them.
    later = (("-ss", "0.25", "-i", "{}", "-c", "copy"),)
    yield Video("edit-list.mp4", (*H264, "-g", "12"), 18, first=6, again=later)
    yield Video("edit-list.mov", (*H264, "-g", "12"), 18, first=6, again=later)
    for ending in ("mp4", "mkv", "ts", "flv"):
        yield Video(f"late-start.{ending}", (*H264, "-output_ts_offset", "10"), rate=None)
    headers = {
        "fragments.mp4": ("-movflags", "frag_keyframe+empty_moov+default_base_moof"),
        "front-index.mp4": ("-movflags", "+faststart"),
        "hybrid.mp4": ("-movflags", "hybrid_fragmented"),
        "live.mkv": ("-live", "1"),
        "live.webm": ("-c:v", "libvpx", "-b:v", "2M", "-live", "1"),
        "no-cues.mkv": ("-write_crc32", "0"),
    }
    for name, options in headers.items():
        yield Video(f"header-{name}", (*H264, *options), rate=None if "live" in name else RATE)


def _streams() -> Iterator[Video]:
    """Sound, subtitles, covers, chapters; one frame and many; names."""
    sound = ("-f", "lavfi", "-i", "sine=duration=1")
    long = ("-f", "lavfi", "-i", "sine=duration=3")
    for ending in ("mp4", "mov", "mkv", "avi", "ts", "mpg"):
        yield Video(
            f"sound.{ending}", (*H264, "-ac", "1") if ending != "mpg" else ("-q:v", "2"), inputs=sound, rate=None
        )
    yield Video("longer-sound.mp4", H264, inputs=long)
    yield Video("longer-sound.mkv", H264, inputs=long)
    yield Video("sound-first.mkv", (*H264, "-map", "1:a", "-map", "0:v"), inputs=sound)
    yield Video("two-sounds.mp4", (*H264, "-map", "0:v", "-map", "1:a", "-map", "1:a"), inputs=sound)
    cover = ("-f", "lavfi", "-i", "color=white:size=320x240:rate=1:duration=1")
    covered = ("-map", "0:v", "-map", "1:v", *H264, "-c:v:1", "mjpeg", "-pix_fmt:1", "yuvj420p")
    yield Video("cover.mp4", (*covered, "-frames:v:1", "1", "-disposition:v:1", "attached_pic"), inputs=cover)
    yield Video("cover-first.mkv", (*covered, "-map", "0:v", "-disposition:v:1", "attached_pic")[:-4], inputs=cover)
    small = ("-f", "lavfi", "-i", "color=white:size=32x24:rate=24:duration=1")
    yield Video("two-films.mkv", ("-map", "1:v", "-map", "0:v", *H264, "-disposition:v", "0"), inputs=small)
    for count in (1, 2, 3, 30):
        for ending in ("mp4", "mkv", "avi", "webm"):
            codec = ("-c:v", "libvpx", "-b:v", "2M") if ending == "webm" else H264
            yield Video(f"frames-{count}.{ending}", (*codec, "-frames:v", str(count)), count, rate=None)
    for number, name in enumerate(
        (
            "a b",
            "-x",
            "a%d",
            "%05d",
            "a:b",
            "é",
            "e\u0301",
            "日本",
            "a'b",
            'a"b',
            "a\\b",
            "{a}",
            "a#b",
            "a|b",
            "a\nb",
            "~",
            "a*?",
        )
    ):
        yield Video(f"{name} {number}.mp4", H264)
    yield Video("no-ending", (*H264, "-f", "mp4"))
    yield Video("wrong-ending.avi", (*H264, "-f", "mp4"))
    yield Video("wrong-ending.mp4", (*H264, "-f", "matroska"))


def _damaged() -> Iterator[Video]:
    for ending, codec in {
        "mp4": H264,
        "mov": H264,
        "mkv": H264,
        "webm": ("-c:v", "libvpx", "-b:v", "400k", "-g", "8"),
        "avi": ("-c:v", "mpeg4", "-q:v", "2"),
        "flv": ("-c:v", "flv1", "-q:v", "2"),
        "wmv": ("-c:v", "wmv2", "-q:v", "2"),
        "mxf": ("-c:v", "mpeg2video", "-q:v", "2", "-g", "4"),
        "rm": ("-c:v", "rv20", "-q:v", "2"),
        "ivf": ("-c:v", "libvpx", "-b:v", "400k", "-g", "8"),
    }.items():
        # Half a second of 30 frames is left out, or more.
        for share in (0.02, 0.25, 0.5, 0.75):
            yield Video(f"cut-{share}.{ending}", codec, num_frames=None, cut=share)
    yield Video("cut-sound-0.5.mkv", H264, None, inputs=("-f", "lavfi", "-i", "sine=duration=1"), cut=0.5)
    yield Video("cut-sound-0.5.wmv", ("-q:v", "2"), None, inputs=("-f", "lavfi", "-i", "sine=duration=1"), cut=0.5)
    contents = {
        "empty.mp4": (b"", "empty"),
        "text.mp4": (b"no video\n" * 20, "not a video"),
        "page.mp4": (b"<!DOCTYPE html><html><body>404</body></html>", "not a video"),
        "zeros.mp4": (bytes(5000), ""),
        "noise.mkv": (np.random.default_rng(0).bytes(5000), ""),
        "head.mkv": (b"\x1aE\xdf\xa3" + bytes(100), "undecodable"),
        "head.avi": (b"RIFF\xff\xff\xff\xffAVI LIST", "undecodable"),
        "head.mp4": (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "truncated"),
        "one-byte.mp4": (b"\0", ""),
    }
    for name, (content, reason) in contents.items():
        yield Video(f"no-{name}", num_frames=None, content=content, reason=reason)
    yield Video(
        "sound-alone.mp4", ("-map", "1:a"), None, inputs=("-f", "lavfi", "-i", "sine=duration=1"), reason="no video"
    )


def corpus() -> list[Video]:
    """All videos."""
    return [*_codecs(), *_pictures(), *_clocks(), *_streams(), *_damaged()]
