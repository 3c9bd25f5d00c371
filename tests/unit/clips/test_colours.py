import numpy as np
import pytest
import torch
from packed_set import MODIST_COLOURS

from pipeline_lib.clips.colours import change_colours, draw_colours
from pipeline_lib.clips.sampling import COLOURS, generator
from pipeline_lib.configuration.training import Colours, Sampling

CLIPS = torch.randint(0, 256, (3, 2, 24, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def drawn(settings: Colours) -> np.ndarray:
    return np.array([draw_colours(generator(0, COLOURS, sample), settings) for sample in range(4000)])


def test_draws_follow_the_pretrainings_probabilities():
    found = drawn(Colours(**MODIST_COLOURS))
    assert abs((found[:, 3] == 1).mean() - 0.2) < 0.03
    assert abs((found[:, 4] > 0).mean() - 0.5) < 0.03
    jittered = found[:, 0] != 1
    assert abs(jittered.mean() - 0.8) < 0.03
    assert 0.6 <= found[:, :3].min() < 0.62
    assert 1.38 < found[:, :3].max() <= 1.4
    assert found[:, 4].max() <= 2.0


def test_each_probability_and_ratio_is_a_key():
    # The release's full fine-tuning: grey half of the time, no blur.
    found = drawn(Colours(brightness=0.1, contrast=0.4, jitter=0.6, grey=0.5))
    assert abs((found[:, 0] != 1).mean() - 0.6) < 0.03
    assert abs((found[:, 3] == 1).mean() - 0.5) < 0.03
    assert (found[:, 4] == 0).all() and (found[:, 2] == 1).all()
    spread = np.abs(found[:, :2] - 1).max(axis=0)
    assert spread == pytest.approx([0.1, 0.4], abs=0.01)
    assert (drawn(Colours()) == [1, 1, 1, 0, 0]).all()


@pytest.mark.parametrize("values", [{"jitter": 0.5}, {"contrast": 0.4}])
def test_a_ratio_without_a_probability_is_refused_and_the_other_way_round(values):
    with pytest.raises(ValueError, match="set it and a ratio above 0, or neither"):
        Colours(**values)
    with pytest.raises(ValueError, match="colours: drawn at random"):
        Sampling(augmentation="none", colours=Colours(grey=0.5))


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
