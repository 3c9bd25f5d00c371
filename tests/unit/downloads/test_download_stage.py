"""The stage against a real server: what arrives, what is tried again, what is listed as failed."""

import hashlib
import io
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from loopback_server import Resource, Server, loopback_server

from pipeline_lib.artefacts.sealing import read_sealed_json
from pipeline_lib.configuration.download import Download
from pipeline_lib.configuration.specification import DownloadSpecification
from pipeline_lib.downloads.stage import run_download
from pipeline_lib.errors import UserError
from pipeline_lib.media.ffmpeg import ffmpeg_executable

CONTENT = random.Random(1).randbytes(400_000)


def settings(tmp_path: Path, **values: object) -> Download:
    common = {
        "kind": "files",
        "destination": str(tmp_path / "videos"),
        "backoff_seconds": 0.01,
        "timeout_seconds": 1.0,
        "minimum_free_gigabytes": 0.0,
        "retries": 3,
        "workers": 2,
    }
    return Download.model_validate(common | values)


def url_list(tmp_path: Path, server: Server, *paths: str) -> str:
    path = tmp_path / "urls.txt"
    path.write_text("# a comment\n\n" + "".join(f"{server.url}{name}\n" for name in paths))
    return str(path)


def fetch(tmp_path: Path, download: Download, **options: object) -> dict:
    return run_download("test", download, tmp_path / "out" / "summary.json", ffmpeg_executable, **options)


def causes(summary: dict) -> dict[str, str]:
    return {failure["path"]: failure["cause"] for failure in summary["failures"]}


def parts_left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(".*"))


def test_every_kind_of_answer(tmp_path):
    resources = {
        "/plain.mp4": Resource(CONTENT),
        "/slow.mp4": Resource(CONTENT, delay=0.3),
        "/forbidden.mp4": Resource(CONTENT, statuses=[403], forever=True),
        "/busy.mp4": Resource(CONTENT, statuses=[429, 429], retry_after="0"),
        "/ill.mp4": Resource(CONTENT, statuses=[500, 503]),
        "/dead.mp4": Resource(CONTENT, statuses=[500], forever=True),
        "/drops.mp4": Resource(CONTENT, drop_after=100_000),
        "/cut.mp4": Resource(CONTENT, drop_after=150_000, polite=True),
        "/hangs.mp4": Resource(CONTENT, stall_after=1000),
        "/page.mp4": Resource(b"<html>please log in</html>", content_type="text/html; charset=utf-8"),
        "/moved.mp4": Resource(redirect="/plain.mp4"),
        "/nothing.mp4": Resource(CONTENT, drop_after=0),
        "/a%20b.mp4": Resource(CONTENT),
    }
    with loopback_server(resources) as server:
        urls = url_list(tmp_path, server, *resources, "/gone.mp4")
        summary = fetch(tmp_path, settings(tmp_path, urls=urls))
        assert causes(summary) == {
            "dead.mp4": "HTTP 500, after 4 attempts without progress",
            "forbidden.mp4": "HTTP 403",
            "gone.mp4": "HTTP 404",
            "nothing.mp4": "the connection dropped, after 4 attempts without progress",
            "page.mp4": "the server answered with a web page instead of the file",
        }
        assert (summary["items"], summary["done"], summary["failed"]) == (14, 9, 5)
        done = ["plain", "slow", "busy", "ill", "drops", "cut", "hangs", "moved", "a b"]
        for name in done:
            assert (tmp_path / "videos" / f"{name}.mp4").read_bytes() == CONTENT
        # Final answers are asked for once, passing ones until they pass.
        assert server.requests["/forbidden.mp4"] == server.requests["/gone.mp4"] == 1
        assert server.requests["/busy.mp4"] == server.requests["/ill.mp4"] == 3
        assert server.requests["/dead.mp4"] == 4
        # Four parts of 100,000 bytes: nothing is sent twice.
        assert server.requests["/drops.mp4"] == 4
        assert server.sent["/drops.mp4"] == len(CONTENT)
        assert server.requests["/cut.mp4"] == 3 and server.sent["/cut.mp4"] == len(CONTENT)
        assert {"bytes=100000-", "bytes=200000-", "bytes=300000-", "bytes=1000-"} <= set(server.range_headers)

        # A second run asks for nothing: neither what is there nor what failed.
        before = sum(server.requests.values())
        assert fetch(tmp_path, settings(tmp_path, urls=urls)) == summary
        assert sum(server.requests.values()) == before
        assert read_sealed_json(tmp_path / "out" / "summary.json") == summary

        # Only on request, and only the failed.
        resources["/dead.mp4"].statuses = []
        summary = fetch(tmp_path, settings(tmp_path, urls=urls), retry_failed=True)
        assert sorted(causes(summary)) == ["forbidden.mp4", "gone.mp4", "nothing.mp4", "page.mp4"]
        assert server.requests["/plain.mp4"] == 2  # itself and the redirect
        assert server.requests["/forbidden.mp4"] == 2


def test_more_drops_than_retries_are_survived_while_bytes_come(tmp_path):
    with loopback_server({"/a.mp4": Resource(CONTENT, drop_after=10_000)}) as server:
        summary = fetch(tmp_path, settings(tmp_path, urls=url_list(tmp_path, server, "/a.mp4"), retries=1))
        assert summary["done"] == 1 and server.requests["/a.mp4"] == 40
    assert (tmp_path / "videos" / "a.mp4").read_bytes() == CONTENT
    assert parts_left(tmp_path / "videos") == []


@pytest.mark.parametrize("broken", ["ranges", "validator"])
def test_a_server_without_resumption_is_read_from_the_start(tmp_path, broken):
    options = {broken: False}
    with loopback_server({"/a.mp4": Resource(CONTENT, drop_after=399_999, num_drops=2, **options)}) as server:
        assert fetch(tmp_path, settings(tmp_path, urls=url_list(tmp_path, server, "/a.mp4")))["done"] == 1
        assert server.sent["/a.mp4"] == 2 * 399_999 + len(CONTENT)
    assert (tmp_path / "videos" / "a.mp4").read_bytes() == CONTENT


def test_a_file_that_changes_on_the_server_is_not_patched_together(tmp_path):
    with loopback_server({"/a.mp4": Resource(CONTENT, drop_after=100_000, num_drops=1)}) as server:
        urls = url_list(tmp_path, server, "/a.mp4")
        stop = threading.Event()
        changed = bytes(reversed(CONTENT))

        def change() -> None:
            while not server.sent["/a.mp4"]:
                time.sleep(0.001)
            server.resources["/a.mp4"].content = changed

        thread = threading.Thread(target=change)
        thread.start()
        assert fetch(tmp_path, settings(tmp_path, urls=urls, backoff_seconds=0.2), stop=stop)["done"] == 1
        thread.join()
    assert (tmp_path / "videos" / "a.mp4").read_bytes() == changed


def test_checksums_and_sizes_of_the_list(tmp_path):
    sha256, md5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()
    with loopback_server({f"/{name}": Resource(CONTENT) for name in "abcde"}) as server:
        lines = [
            "url,path,sha256,md5,size",
            f"{server.url}/a,class one/a.mp4,{sha256},{md5},{len(CONTENT)}",
            f"{server.url}/b,b.mp4,{'0' * 64},,",
            f"{server.url}/c,c.mp4,,{'0' * 32},",
            f"{server.url}/d,d.mp4,,,12",
            f"{server.url}/e,e.mp4,{sha256.upper()},,",
        ]
        (tmp_path / "urls.csv").write_text("\n".join(lines))
        summary = fetch(tmp_path, settings(tmp_path, urls=str(tmp_path / "urls.csv"), retries=1))
        assert server.requests["/b"] == 2, "bytes may have suffered on the way: one more try"
    assert (tmp_path / "videos" / "class one" / "a.mp4").read_bytes() == CONTENT
    assert (tmp_path / "videos" / "e.mp4").exists()
    found = causes(summary)
    assert found["b.mp4"].startswith(f"damaged: sha256 is {sha256}") and "damaged: md5" in found["c.mp4"]
    assert found["d.mp4"] == f"the server has {len(CONTENT)} bytes, the list says 12"
    assert not (tmp_path / "videos" / "b.mp4").exists()
    assert parts_left(tmp_path / "videos") == []


def test_template_filled_from_official_annotations(tmp_path):
    annotation = tmp_path / "train.csv"
    annotation.write_text(
        "label,youtube_id,time_start,time_end,split\n"
        "air drumming,-AirDrum_02,0,10,train\nair drumming,-AirDrum_02,10,20,train\nabseiling,gone0000000,3,13,train\n"
    )
    wanted = [f"/k/air%20drumming/-AirDrum_02_{t:06d}_{t + 10:06d}.mp4" for t in (0, 10)]
    with loopback_server({path: Resource(CONTENT) for path in wanted}) as server:
        download = settings(
            tmp_path,
            template=server.url + "/k/{label}/{id}_{start:06d}_{end:06d}.mp4",
            annotations=[str(annotation)],
        )
        summary = fetch(tmp_path, download)
    assert causes(summary) == {"gone0000000_000003_000013.mp4": "HTTP 404"}
    assert (tmp_path / "videos" / "-AirDrum_02_000010_000020.mp4").read_bytes() == CONTENT


def test_rates_and_workers_are_kept(tmp_path):
    names = [f"/{index}.mp4" for index in range(8)]
    with loopback_server({name: Resource(CONTENT[:1000], delay=0.15) for name in names}) as server:
        fetch(tmp_path, settings(tmp_path, urls=url_list(tmp_path, server, *names), workers=4))
        assert 2 <= server.most_active <= 4
    with loopback_server({name: Resource(CONTENT[:1000]) for name in names}) as server:
        shutil.rmtree(tmp_path / "videos")
        fetch(tmp_path, settings(tmp_path, urls=url_list(tmp_path, server, *names), requests_per_second=20.0))
        gaps = sorted(server.times)
        assert gaps[-1] - gaps[0] >= 7 / 20 - 0.05
    with loopback_server({"/big.mp4": Resource(CONTENT)}) as server:
        begin = time.monotonic()
        fetch(tmp_path, settings(tmp_path, urls=url_list(tmp_path, server, "/big.mp4"), megabytes_per_second=1.0))
        # The first chunk is free, the others wait for those before them.
        assert time.monotonic() - begin >= (len(CONTENT) - 2 * 65536) / 1e6


def test_servers_that_cannot_be_asked_are_named(tmp_path):
    (tmp_path / "urls.txt").write_text("http://127.0.0.1:99999/a.mp4\nhttp://127.0.0.1:1/b.mp4\n")
    found = causes(fetch(tmp_path, settings(tmp_path, urls=str(tmp_path / "urls.txt"), retries=1)))
    assert found["a.mp4"].startswith("no usable URL")
    assert "Connection refused, after 2 attempts" in found["b.mp4"]


def test_retry_after_is_obeyed(tmp_path):
    with loopback_server({"/a.mp4": Resource(CONTENT, statuses=[429], retry_after="1")}) as server:
        assert fetch(tmp_path, settings(tmp_path, urls=url_list(tmp_path, server, "/a.mp4")))["done"] == 1
        assert server.times[1] - server.times[0] >= 1.0


def test_a_site_that_refuses_is_left_alone_and_nothing_counts_as_failed(tmp_path):
    names = [f"/{index}.mp4" for index in range(20)]
    refusal = {"statuses": [429], "forever": True, "retry_after": "some day"}
    with loopback_server({name: Resource(**refusal) for name in names}) as server:
        download = settings(tmp_path, urls=url_list(tmp_path, server, *names), retries=0, workers=1)
        with pytest.raises(UserError, match=r"0 of 20 items are there.*refuses.*requests_per_second"):
            fetch(tmp_path, download)
        assert sum(server.requests.values()) == 3
        assert not (tmp_path / "out" / "summary.json").exists()
        for entry in server.resources.values():
            entry.statuses, entry.content = [], CONTENT
        assert fetch(tmp_path, download)["done"] == 20


def run_command(download: Download, output: Path, **options: object) -> subprocess.Popen:
    specification = DownloadSpecification(name="test", download=download).model_dump_json()
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline_lib", "download", "--specification", specification, "--output", str(output)],
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle_it_goes_on_with_what_it_has(tmp_path, number):
    with loopback_server({"/a.mp4": Resource(CONTENT * 5), "/b.mp4": Resource(CONTENT)}) as server:
        urls = url_list(tmp_path, server, "/a.mp4", "/b.mp4")
        slow = settings(tmp_path, urls=urls, megabytes_per_second=0.5, workers=1)
        process = run_command(slow, tmp_path / "out" / "summary.json")
        part = tmp_path / "videos" / ".a.mp4.part"
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 300_000):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, message = process.communicate(timeout=30)
        if number == signal.SIGTERM:
            assert process.returncode == 2 and "goes on from here" in message and "Traceback" not in message
        assert not (tmp_path / "out" / "summary.json").exists()
        have = part.stat().st_size
        assert 300_000 < have < 2_000_000
        assert fetch(tmp_path, settings(tmp_path, urls=urls))["done"] == 2
        assert server.range_headers == [f"bytes={have}-"]
    assert (tmp_path / "videos" / "a.mp4").read_bytes() == CONTENT * 5


def test_a_full_disk_stops_cleanly_and_is_no_failure_of_the_videos(tmp_path):
    """A file-size limit makes the write fail in the kernel; the free-space check is tested with a reserve."""
    with loopback_server({f"/{name}.mp4": Resource(CONTENT) for name in "abc"}) as server:
        urls = url_list(tmp_path, server, "/a.mp4", "/b.mp4", "/c.mp4")
        reserve = shutil.disk_usage(tmp_path).total / 1e9
        with pytest.raises(UserError, match=r"are free.*minimum_free_gigabytes.*goes on from here"):
            fetch(tmp_path, settings(tmp_path, urls=urls, minimum_free_gigabytes=reserve))
        assert server.sent == {} or sum(server.sent.values()) <= 2 * len(CONTENT)
        assert not list((tmp_path / "videos").glob("*.mp4"))
        assert fetch(tmp_path, settings(tmp_path, urls=urls))["done"] == 3


def test_a_disk_that_fills_up_while_writing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        # Only a file system of its own can be filled without harm; containers forbid mounting even to root.
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        # No Content-Length says beforehand that it does not fit in the second case: the archive's members.
        with loopback_server({f"/{index}.mp4": Resource(CONTENT) for index in range(5)}) as server:
            urls = url_list(tmp_path, server, *server.resources)
            small = settings(tmp_path, urls=urls, destination=str(disk / "videos"), workers=3)
            process = run_command(small, tmp_path / "out" / "summary.json")
            _, message = process.communicate(timeout=60)
            assert process.returncode == 2 and "Traceback" not in message
            assert "Make room. Run the same command again" in message
            done = sorted(path.name for path in (disk / "videos").glob("*.mp4"))
            assert len(done) <= 2
            assert all((disk / "videos" / name).read_bytes() == CONTENT for name in done)
            subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
            assert fetch(tmp_path, small)["done"] == 5
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_mistakes_of_the_user_are_one_message(tmp_path):
    bad = {
        "absolute.csv": "url,path\nhttp://h/a,/etc/passwd\n",
        "climbs.csv": "url,path\nhttp://h/a,../../a.mp4\n",
        "twice.txt": "http://h/x/a.mp4\nhttp://h/y/a.mp4\n",
        "nourl.txt": "file:///etc/passwd\n",
        "empty.txt": "# nothing\n",
        "size.csv": "url,size\nhttp://h/a.mp4,many\n",
    }
    for name, text in bad.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=r"refused|would both become|not an http|is empty|not a number"):
            fetch(tmp_path, settings(tmp_path, urls=str(tmp_path / name)))
    with pytest.raises(UserError, match="cannot be read"):
        fetch(tmp_path, settings(tmp_path, urls=str(tmp_path / "absent.txt")))
    annotation = tmp_path / "list.csv"
    annotation.write_text("youtube_id\nabc\n")
    with pytest.raises(UserError, match=r"entry 1: .*cannot be filled"):
        fetch(tmp_path, settings(tmp_path, template="http://h/{id}_{begin}", annotations=[str(annotation)]))
    annotation.write_text("name\nabc\n")
    with pytest.raises(UserError, match="no column `youtube_id`"):
        fetch(tmp_path, settings(tmp_path, template="http://h/{id}", annotations=[str(annotation)]))


def tar_of(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_archives_in_the_layout_of_cvdf(tmp_path):
    """A list on the server names numbered parts, which hold the clips flat; the parts drop on the way."""
    first = {f"id{index:09d}_000000_000010.mp4": CONTENT[: 1000 + index] for index in range(20)}
    second = {f"jd{index:09d}_000000_000010.mp4": CONTENT[: 9000 + index] for index in range(20)}
    resources = {
        "/train/part_0.tar.gz": Resource(tar_of(first), drop_after=5000),
        "/train/part_1.tar.gz": Resource(tar_of(second), drop_after=50_000),
        "/train/part_2.tar.gz": Resource(tar_of(first)[:-300]),
        "/train/part_3.tar.gz": Resource(b"no archive at all"),
    }
    with loopback_server(resources) as server:
        text = "".join(f"{server.url}{path}\n" for path in resources)
        server.resources["/k400_train_path.txt"] = Resource(text.encode(), content_type="text/plain")
        download = settings(tmp_path, kind="archives", urls=f"{server.url}/k400_train_path.txt")
        summary = fetch(tmp_path, download)
        assert sorted(causes(summary)) == ["part_2.tar.gz", "part_3.tar.gz"]
        assert all(cause.startswith("no sound tar archive") for cause in causes(summary).values())
        before = dict(server.requests)
        assert fetch(tmp_path, download) == summary
        after = dict(server.requests)
        assert before.pop("/k400_train_path.txt") + 1 == after.pop("/k400_train_path.txt")
        assert before == after
    videos = {path.name: path.read_bytes() for path in (tmp_path / "videos").iterdir()}
    assert videos == first | second, "the clips, no archive, no part"


def test_several_archives_together_do_not_lead_outside(tmp_path):
    """Each of two archives is harmless alone; their links together would lead a third one out of the destination."""

    def tar(*members: tuple[str, bytes, str]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as file:
            for name, kind, value in members:
                info = tarfile.TarInfo(name)
                info.type, info.linkname, info.mode = kind, value if kind == tarfile.SYMTYPE else "", 0o755
                info.size = len(value) if kind == tarfile.REGTYPE else 0
                file.addfile(info, io.BytesIO(value.encode()))
        return buffer.getvalue()

    folder, link, plain = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.REGTYPE
    resources = {
        "/1.tar": Resource(tar(("x", folder, ""), ("x/y", link, "../z/w/../.."))),
        "/2.tar": Resource(tar(("z", folder, ""), ("z/w", link, "."))),
        "/3.tar": Resource(tar(("x/y", folder, ""), ("x/y/secret.txt", plain, "overwritten"))),
    }
    (tmp_path / "secret.txt").write_text("mine")
    with loopback_server(resources) as server:
        urls = url_list(tmp_path, server, *resources)
        summary = fetch(tmp_path, settings(tmp_path, kind="archives", urls=urls, workers=1))
    assert causes(summary) == {
        "1.tar": "refused: the archive's member 'x/y' is a link; only plain files are taken",
        "2.tar": "refused: the archive's member 'z/w' is a link; only plain files are taken",
    }
    assert (tmp_path / "secret.txt").read_text() == "mine"
    assert (tmp_path / "videos" / "x" / "y" / "secret.txt").read_text() == "overwritten"
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_file_does_not_land_behind_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "x").symlink_to(tmp_path / "elsewhere")
    with loopback_server({"/a": Resource(CONTENT), "/b": Resource(CONTENT)}) as server:
        (tmp_path / "urls.csv").write_text(f"url,path\n{server.url}/a,x/a.mp4\n{server.url}/b,y/b.mp4\n")
        summary = fetch(tmp_path, settings(tmp_path, urls=str(tmp_path / "urls.csv")))
    assert summary["done"] == 1 and "reached through a link" in causes(summary)["x/a.mp4"]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_size_that_no_disk_holds_fails_its_item_alone(tmp_path):
    info = tarfile.TarInfo("huge.mp4")
    info.size = 10**18
    resources = {
        "/header.tar": Resource(info.tobuf(format=tarfile.GNU_FORMAT) + bytes(1024)),
        "/length.tar": Resource(tar_of({"a.mp4": CONTENT}), claims=10**18),
        "/good.tar": Resource(tar_of({"good.mp4": CONTENT})),
    }
    with loopback_server(resources) as server:
        download = settings(tmp_path, kind="archives", urls=url_list(tmp_path, server, *resources), workers=1)
        summary = fetch(tmp_path, download)
        assert (summary["done"], sorted(causes(summary))) == (1, ["header.tar", "length.tar"])
        assert "claims 1000000000000000000 bytes" in causes(summary)["length.tar"]
        before = sum(server.requests.values())
        assert fetch(tmp_path, download) == summary
        assert sum(server.requests.values()) == before
    assert (tmp_path / "videos" / "good.mp4").read_bytes() == CONTENT


def test_what_does_not_fit_now_leaves_the_others_alone_and_waits_for_room(tmp_path):
    disk = shutil.disk_usage(tmp_path)
    resources = {
        "/big.mp4": Resource(CONTENT, claims=(disk.free + disk.total) // 2),
        "/a.mp4": Resource(CONTENT),
        "/b.mp4": Resource(CONTENT),
    }
    with loopback_server(resources) as server:
        download = settings(tmp_path, urls=url_list(tmp_path, server, *resources), workers=1)
        with pytest.raises(UserError, match=r"2 of 3 items are there. big.mp4: .* GB are needed.*goes on from here"):
            fetch(tmp_path, download)
        resources["/big.mp4"].claims = None
        assert fetch(tmp_path, download)["done"] == 3


def test_a_damaged_archive_is_never_done_and_comes_again_on_request(tmp_path):
    good = tar_of({"a.mp4": CONTENT, "b.mp4": CONTENT})
    with loopback_server({"/part.tar.gz": Resource(good[:-3])}) as server:
        download = settings(tmp_path, kind="archives", urls=url_list(tmp_path, server, "/part.tar.gz"))
        for attempt in (False, True):
            summary = fetch(tmp_path, download, retry_failed=attempt)
            assert summary["done"] == 0 and causes(summary)["part.tar.gz"].startswith("no sound tar archive")
        assert not list((tmp_path / "videos").iterdir())
        lines = (tmp_path / "out" / "outcomes.jsonl").read_text().split()
        assert not any('"done"' in line for line in lines)
        server.resources["/part.tar.gz"].content = good
        assert fetch(tmp_path, download, retry_failed=True)["done"] == 1
        assert server.requests["/part.tar.gz"] == 3
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["a.mp4", "b.mp4"]


def test_an_archive_that_was_not_extracted_before_a_kill_is_not_fetched_again(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "part.tar").write_bytes(tar_of({"a.mp4": CONTENT}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "outcomes.jsonl").write_text('{"key": "part.tar", "sta')
    with loopback_server({}) as server:
        download = settings(tmp_path, kind="archives", urls=url_list(tmp_path, server, "/part.tar"))
        summary = fetch(tmp_path, download)
        assert summary["done"] == 1 and fetch(tmp_path, download) == summary
        assert not server.requests
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["a.mp4"]


def test_a_file_that_is_whole_but_without_its_name_is_not_fetched_again(tmp_path):
    with loopback_server({"/a.mp4": Resource(CONTENT)}) as server:
        urls = url_list(tmp_path, server, "/a.mp4")
        assert fetch(tmp_path, settings(tmp_path, urls=urls))["done"] == 1
        (tmp_path / "videos" / "a.mp4").rename(tmp_path / "videos" / ".a.mp4.part")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        note = f'{server.url}/a.mp4\n"{hashlib.md5(CONTENT).hexdigest()}"\n{boot}\n0'
        (tmp_path / "videos" / ".a.mp4.part.note").write_text(note)
        assert fetch(tmp_path, settings(tmp_path, urls=urls))["done"] == 1
        assert server.sent["/a.mp4"] == len(CONTENT)
    assert (tmp_path / "videos" / "a.mp4").read_bytes() == CONTENT
    assert parts_left(tmp_path / "videos") == []
