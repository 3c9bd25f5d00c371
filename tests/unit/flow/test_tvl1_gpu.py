"""The GPU kernels, in Triton's interpreter on the CPU and on a GPU where there is one, against the definition."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from flow_material import moving_frames

from pipeline_lib.flow.tvl1_parameters import TVL1Parameters
from pipeline_lib.flow.tvl1_torch import tvl1

# Triton decides at import whether it compiles or interprets: the interpreter needs a process of its own.
_SCRIPT = """
import sys
import torch
from pipeline_lib.configuration.data import Motion
from pipeline_lib.flow import tvl1_gpu
from pipeline_lib.flow.tvl1 import TVL1OnGPU

case = torch.load(sys.argv[1])
tvl1_gpu.TILE, tvl1_gpu.FUSED_ITERATIONS = 16, 3
method = TVL1OnGPU(Motion(method="tvl1", parameters=case["parameters"]), torch.device("cpu"))
torch.save(method.motion(case["frames"].numpy(), case["gap"]), sys.argv[2])
"""


@pytest.mark.parametrize("gap", [1, -2])
def test_kernels_in_the_interpreter_equal_the_definition(tmp_path: Path, gap: int) -> None:
    """Tiles of 16 px with halos of 3 and 1 (4 iterations) on a frame of 3 × 3 tiles: seams and borders would show.

    Three pairs are computed as four, the last of which is dropped."""
    frames = torch.from_numpy(moving_frames(4, 21, 27, (1, 1), seed=2)) // 2
    frames += torch.randint(0, 9, frames.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    values = {"num_scales": 2, "num_warps": 2, "iterations": 4}
    torch.save({"frames": frames, "gap": gap, "parameters": values}, tmp_path / "case.pt")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "case.pt"), str(tmp_path / "flow.pt")]
    subprocess.run(command, check=True, env=environment)
    flow = torch.load(tmp_path / "flow.pt")
    frames = frames[:, None].float()
    reach = abs(gap)
    first, second = (frames[:-reach], frames[reach:]) if gap > 0 else (frames[reach:], frames[:-reach])
    wanted = tvl1(first, second, TVL1Parameters(**values))
    assert wanted.abs().max() > 0.5
    torch.testing.assert_close(flow, wanted, atol=2e-3, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_captured_graph_equals_the_definition_on_a_gpu() -> None:
    from pipeline_lib.flow.tvl1_gpu import BatchedTVL1

    device = torch.device("cuda")
    solver = BatchedTVL1(4, 120, 160, 1, TVL1Parameters(), device)
    for step in ((2, 1), (-1, 0)):
        frames = torch.from_numpy(moving_frames(4, 120, 160, step)).to(device)[:, None].float()
        difference = solver(frames) - tvl1(frames[:-1], frames[1:], TVL1Parameters())
        assert difference.norm(dim=1).mean() < 0.01
