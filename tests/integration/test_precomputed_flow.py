"""Frames and flow that exist already go through Snakemake to motion shards, and an edit of theirs is noticed."""

import pytest
import yaml
from rawframes import write_raw_frames
from small_project import copy_sources

OVERLAY = {
    "datasets": {"own": {"format": "rawframes", "videos": ["tree"], "num_shards": 1, "frames_per_second": 25.0}},
    "motions": {"own_flow": {"method": "precomputed", "parameters": {"written_bound": 20.0}}},
}
MOTION = "output/motion/own/short64_native/own_flow/000.h5"


@pytest.mark.media
def test_flow_beside_frames_becomes_a_shard_and_another_bound_makes_it_again(repository, media, tmp_path):
    project = copy_sources(repository, tmp_path / "project")
    for number, label in enumerate(("a", "b")):
        folder = project.folder / "tree" / label / "one"
        write_raw_frames(media / "clips" / "abseiling.mp4", folder, start=2.0 * number)
    (project.folder / "small.yaml").write_text(yaml.safe_dump(OVERLAY))
    assert set(project.succeed(MOTION).jobs) == {"manifest", "extract_frames", "extract_motion_on_cpu"}
    assert "Nothing to be done" in project.plan(MOTION).text
    project.edit("small.yaml", "written_bound: 20.0", "written_bound: 10.0")
    edited = project.plan(MOTION)
    assert set(edited.jobs) == {"extract_motion_on_cpu"}
    assert "motion.parameters.written_bound was 20.0, is 10.0" in edited.text
    project.edit("small.yaml", "written_bound: 10.0", "written_bound: 20.0")
    # Other bytes of one flow image: the next manifest sees them.
    flow = project.folder / "tree" / "b" / "one" / "flow_x_00003.jpg"
    flow.write_bytes(flow.read_bytes() + b" ")
    assert {"manifest", "extract_motion_on_cpu"} <= set(
        project.succeed(MOTION, options=("--forcerun", "manifest")).jobs
    )
