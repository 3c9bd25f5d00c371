"""The optional download stage through Snakemake, from a server on loopback."""

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from small_project import Project


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(sources: Project, tmp_path: Path) -> Iterator[tuple[Project, str]]:
    """A project, and the address under which its videos are served."""
    project = sources.copy(tmp_path / "project")
    handler = functools.partial(Quiet, directory=str(project.folder / "data"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield project, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_videos_come_from_a_mirror_and_what_fails_is_listed(mirror: tuple[Project, str]) -> None:
    project, address = mirror
    videos = sorted((project.folder / "data/train").glob("*.mp4"))
    urls = project.folder / "urls.txt"
    urls.write_text("".join(f"{address}/train/{video.name}\n" for video in videos) + f"{address}/train/gone.mp4\n")
    download = {
        "kind": "files",
        "urls": "urls.txt",
        "destination": "fetched",
        "retries": 0,
        "minimum_free_gigabytes": 0,
    }
    small = project.folder / "small.yaml"
    small.write_text(small.read_text() + yaml.safe_dump({"downloads": {"mirror": download}}))
    assert project.succeed("download").jobs["fetch_videos"] == 1
    for video in videos:
        assert (project.folder / "fetched" / video.name).read_bytes() == video.read_bytes()
    summary = json.loads((project.output / "downloads/mirror/summary.json").read_text())
    assert (summary["done"], summary["failed"]) == (len(videos), 1)
    assert "Nothing to be done" in project.succeed("download").text


def test_without_configuration_the_target_says_what_to_write(sources: Project) -> None:
    outcome = sources.run("download", options=("--dry-run",))
    assert outcome.status != 0
    assert "`downloads` in the configuration is empty" in outcome.text and "docs/download.md" in outcome.text
    assert "Traceback" not in outcome.text
