"""yt-dlp on pages of a loopback server, and trimming of real clips through ffmpeg."""

import threading
import time
from pathlib import Path

import av
import pytest
from loopback_server import Resource, loopback_server
from test_download_stage import causes, fetch, settings

from pipeline_lib.downloads.session import FailedError, Session
from pipeline_lib.downloads.youtube import arguments, trim
from pipeline_lib.errors import UserError
from pipeline_lib.media.ffmpeg import ffmpeg_executable

pytestmark = pytest.mark.media
CLIP = "aBsEiLiNg01_000000_000010.mp4"


def shape_of(path: Path) -> tuple[int, float, int, int]:
    """Frames, seconds, width, height, as decoded."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.time for frame in container.decode(stream)]
        return len(frames), len(frames) / float(stream.average_rate), stream.width, stream.height


def test_the_annotated_interval_is_cut_to_the_frame(tmp_path, media):
    source = media / "clips"
    video = sorted(path for path in source.iterdir() if path.suffix == ".mp4")[0]
    num_frames, seconds, width, height = shape_of(video)
    trim(ffmpeg_executable(), video, tmp_path / "cut.mp4", 1.0, 2.0)
    cut_frames, cut_seconds, *cut_shape = shape_of(tmp_path / "cut.mp4")
    assert abs(cut_frames - num_frames / seconds) <= 1 and abs(cut_seconds - 1.0) <= 0.05
    assert cut_shape == [width, height]
    # The right second: its first frame is the source's nearest frame, not another.
    with av.open(str(video)) as container:
        frames = [f.to_ndarray(format="gray").astype(float) for f in container.decode(video=0)]
    with av.open(str(tmp_path / "cut.mp4")) as container:
        first = next(container.decode(video=0)).to_ndarray(format="gray").astype(float)
    differences = [abs(frame - first).mean() for frame in frames]
    assert abs(differences.index(min(differences)) - round(num_frames / seconds)) <= 1


def test_an_interval_that_is_not_there_is_a_failure(tmp_path, media):
    video = media / "kinetics_sample" / "videos" / "train" / CLIP
    for start, end, message in ((1000.0, 1010.0, "ends before"), (3.0, 3.0, "empty")):
        with pytest.raises(FailedError, match=message):
            trim(ffmpeg_executable(), video, tmp_path / "cut.mp4", start, end)
    broken = media / "kinetics_sample" / "videos" / "train" / "hTmLpAgE_06_000020_000030.mp4"
    with pytest.raises(FailedError, match="ffmpeg cannot cut"):
        trim(ffmpeg_executable(), broken, tmp_path / "cut.mp4", 0.0, 1.0)


def test_clips_come_through_yt_dlp_and_failures_are_named(tmp_path, media):
    video = next(path for path in sorted((media / "clips").iterdir()) if path.suffix == ".mp4")
    annotation = tmp_path / "train.csv"
    annotation.write_text(
        "label,youtube_id,time_start,time_end,split\n"
        "abseiling,-bSeiling01,1,2,train\nabseiling,gOne0000001,0,10,train\nabseiling,wHole000001,900,910,train\n"
    )
    resources = {f"/{name}.mp4": Resource(video.read_bytes()) for name in ("-bSeiling01", "wHole000001")}
    with loopback_server(resources) as server:
        download = settings(
            tmp_path, kind="youtube", template=server.url + "/{id}.mp4", annotations=[str(annotation)], workers=2
        )
        summary = fetch(tmp_path, download)
        assert summary["done"] == 1
        found = causes(summary)
        assert "404" in found["gOne0000001_000000_000010.mp4"]
        assert "ends before 900" in found["wHole000001_000900_000910.mp4"]
        _, seconds, *_ = shape_of(tmp_path / "videos" / "-bSeiling01_000001_000002.mp4")
        assert abs(seconds - 1.0) <= 0.05
        assert [path.name for path in (tmp_path / "videos").iterdir()] == ["-bSeiling01_000001_000002.mp4"]
        before = sum(server.requests.values())
        assert fetch(tmp_path, download) == summary
        assert sum(server.requests.values()) == before


def test_a_check_for_robots_stops_the_stage(tmp_path):
    annotation = tmp_path / "ids.csv"
    annotation.write_text("id\n" + "\n".join(f"id{index}" for index in range(10)))
    resources = {f"/id{index}.mp4": Resource(statuses=[429], forever=True) for index in range(10)}
    with loopback_server(resources) as server:
        download = settings(
            tmp_path, kind="youtube", template=server.url + "/{id}.mp4", annotations=[str(annotation)], workers=1
        )
        with pytest.raises(UserError, match="refuses further downloads"):
            fetch(tmp_path, download)
        assert len(server.requests) <= 3, "the others are left alone"


def test_all_workers_together_keep_the_rate(tmp_path):
    def words(**rates: float) -> str:
        session = Session(settings(tmp_path, urls="list.txt", workers=4, **rates), threading.Event())
        return " ".join(arguments(tmp_path, session, "ffmpeg"))

    limited = words(megabytes_per_second=2.0, requests_per_second=0.5)
    assert "--limit-rate 500000.0 --sleep-requests 8.0" in limited
    assert "--limit-rate" not in words() and "--sleep-requests" not in words()


def test_yt_dlp_goes_on_with_what_a_stop_left(tmp_path, media):
    video = next(path for path in sorted((media / "clips").iterdir()) if path.suffix == ".mp4").read_bytes()
    (tmp_path / "ids.csv").write_text("id\nclip\n")
    with loopback_server({"/clip.mp4": Resource(video)}) as server:
        options = {"kind": "youtube", "template": server.url + "/{id}.mp4", "annotations": [str(tmp_path / "ids.csv")]}
        slow, stop = settings(tmp_path, megabytes_per_second=len(video) / 20e6, **options), threading.Event()
        partial = tmp_path / "videos" / ".clip.mp4.partial"

        def end() -> None:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and not any(part.stat().st_size for part in partial.glob("*.part")):
                time.sleep(0.05)
            stop.set()

        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(UserError, match=r"0 of 1 items are there.*goes on from here"):
            fetch(tmp_path, slow, stop=stop)
        thread.join()
        (part,) = partial.glob("*.part")
        have = part.stat().st_size
        assert 0 < have < len(video)
        assert fetch(tmp_path, settings(tmp_path, **options))["done"] == 1
        assert f"bytes={have}-" in server.range_headers
    assert (tmp_path / "videos" / "clip.mp4").read_bytes() == video
    assert not partial.exists()
