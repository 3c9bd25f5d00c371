"""Nearest-neighbour figures against a plain count, and the stage on real small artefacts."""

import json
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_tree import CLASSES, CROP, make_run, make_tree, training_specification

from pipeline_lib.artefacts.layout import Layout
from pipeline_lib.cli import retrieve as command
from pipeline_lib.configuration.experiments import Protocol
from pipeline_lib.configuration.specification import EvaluationSpecification
from pipeline_lib.evaluation.retrieval import neighbour_figures, retrieve
from pipeline_lib.media.shards import Shard


def unit(random: np.random.Generator, rows: int) -> np.ndarray:
    values = random.standard_normal((rows, 6)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@given(st.integers(1, 30), st.integers(1, 60), st.integers(0, 2**31))
def test_figures_are_a_plain_count(num_queries: int, num_gallery: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    queries, gallery = unit(random, num_queries), unit(random, num_gallery)
    labels = [
        [tuple(random.choice(5, size=random.integers(1, 3), replace=False).tolist()) for _ in range(count)]
        for count in (num_queries, num_gallery)
    ]
    found = neighbour_figures(queries, labels[0], gallery, labels[1], 5)
    expected = dict.fromkeys(("recall_at_1", "recall_at_5", "recall_at_10", "knn_top1"), 0)
    for query, own in zip(queries, labels[0], strict=True):
        near = sorted(range(num_gallery), key=lambda row: -float(query @ gallery[row]))
        for rank in (1, 5, 10):
            expected[f"recall_at_{rank}"] += any(set(own) & set(labels[1][row]) for row in near[:rank])
        votes = np.zeros(5)
        for row in near[:20]:
            for label in labels[1][row]:
                votes[label] += np.exp((float(query @ gallery[row]) - 1) / 0.07)
        expected["knn_top1"] += int(votes.argmax()) in own
    assert found == {name: count / num_queries for name, count in expected.items()}


def test_the_stage_asks_the_training_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = make_tree(tmp_path / "output", num_videos=24)
    training = training_specification("baseline")
    network = make_run(layout, training)
    specification = EvaluationSpecification(training=training, protocol_name="two", protocol=Protocol(num_clips=2))
    words = {"specification": specification.model_dump_json(), "root": layout.root, "output": None, "loader_workers": 0}
    assert command.run(type("Options", (), words)()) == 0
    record = json.loads(layout.retrieval("baseline", "1", "0", "two").read_text())
    assert (record["num_gallery"], record["num_queries"]) == (12, 12)
    assert f"R@1 {100 * record['metrics']['recall_at_1']:.2f} %" in capsys.readouterr().out
    features = {id: video_features(layout, network, id) for id in (f"v{number:02d}" for number in range(24))}
    hits = 0
    for query in range(12, 24):
        near = max(range(12), key=lambda row: float(features[f"v{query:02d}"] @ features[f"v{row:02d}"]))
        hits += near % len(CLASSES) == query % len(CLASSES)
    assert record["metrics"]["recall_at_1"] == pytest.approx(hits / 12, abs=1e-9)
    again = retrieve(specification, layout.root, tmp_path / "again.json", 1)
    assert again["metrics"] == record["metrics"]
    assert (tmp_path / "again.json").read_bytes() == layout.retrieval("baseline", "1", "0", "two").read_bytes()


def video_features(layout: Layout, network: torch.nn.Module, id: str) -> torch.Tensor:
    """The mean of a video's first and last clip, by hand."""
    for path in sorted(layout.frames("tiny", "small", "x").parent.glob("*.h5")):
        shard = Shard(path)
        if id in shard.index:
            row = shard.index[id]
            jpegs = shard.read(row, 0, shard.videos[row].num_frames)
            frames = torch.from_numpy(np.stack([simplejpeg.decode_jpeg(bytes(jpeg)) for jpeg in jpegs]))
    clips = []
    height, width = frames.shape[1:3]
    short = min(height, width)
    top, left = round((height - CROP) / 2), round((width - CROP) / 2)
    assert short == 40
    for start in (0, len(frames) - 8):
        piece = frames[start : start + 8, top : top + CROP, left : left + CROP].permute(3, 0, 1, 2).float()
        clips.append(piece / 127.5 - 1)
    name = network.endpoints[-2]
    with torch.no_grad():
        maps = network.eval().forward_features(torch.stack(clips), [name])[name]
    mean = maps.double().mean(dim=(0, 2, 3, 4))
    return mean / mean.norm()
