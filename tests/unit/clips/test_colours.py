import numpy as np
import torch

from pipeline_lib.clips.colours import change_colours, draw_colours
from pipeline_lib.clips.sampling import COLOURS, generator

CLIPS = torch.randint(0, 256, (3, 2, 24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_draws_follow_the_papers_probabilities():
    drawn = np.array([draw_colours(generator(0, COLOURS, sample)) for sample in range(4000)])
    assert abs((drawn[:, 3] == 1).mean() - 0.2) < 0.03
    assert abs((drawn[:, 4] > 0).mean() - 0.5) < 0.03
    jittered = drawn[:, 0] != 1
    assert abs(jittered.mean() - 0.8) < 0.03
    assert 0.6 <= drawn[:, :3].min() < 0.62
    assert 1.38 < drawn[:, :3].max() <= 1.4
    assert drawn[:, 4].max() <= 2.0


def test_nothing_drawn_changes_nothing():
    assert torch.equal(change_colours(CLIPS, torch.tensor([[1.0, 1, 1, 0, 0]] * 3)), CLIPS)


def test_each_clip_gets_its_own_change_in_all_its_frames():
    changed = change_colours(CLIPS, torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0.6, 1, 1, 0, 0]]))
    assert torch.equal(changed[0], CLIPS[0])
    luma = (CLIPS[1].float() @ torch.tensor([0.2989, 0.587, 0.114])).unsqueeze(-1)
    assert (changed[1].float() - luma).abs().max() <= 1
    assert (changed[2].float() - 0.6 * CLIPS[2].float()).abs().max() <= 1


def test_blur_smooths_space_and_not_time():
    clip = torch.zeros(1, 3, 25, 25, 3, dtype=torch.uint8)
    clip[0, 1, 12, 12] = 255
    blurred = change_colours(clip, torch.tensor([[1.0, 1, 1, 0, 1.0]]))
    assert blurred[0, 0].max() == 0
    assert blurred[0, 2].max() == 0
    # The centre of a Gaussian of σ = 1 px is 1 / 2π.
    assert abs(int(blurred[0, 1, 12, 12, 0]) - 255 / (2 * np.pi)) < 1.5
