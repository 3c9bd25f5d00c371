"""The GPU kernels, in Triton's interpreter on the CPU and on a GPU where there is one, against the definition."""

import inspect
import json
import os
import subprocess
import sys
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flow_material import defined_tvl1, moving_frames

from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.motions import TVL1Parameters
from pipeline_lib.flow.motion_stage import motion_images
from pipeline_lib.flow.tvl1 import gpu as tvl1_gpu
from pipeline_lib.flow.tvl1 import triton_solver as tvl1_triton
from pipeline_lib.flow.tvl1.gpu import BLOCK, TILES, Tile
from pipeline_lib.flow.tvl1.method import TVL1OnGPU

# Triton decides at import whether it compiles or interprets: the interpreter needs a process of its own.
_SCRIPT = """
import sys
import torch
from pipeline_lib.configuration.data import Motion
from pipeline_lib.flow.tvl1 import gpu as tvl1_gpu
from pipeline_lib.flow.tvl1.method import TVL1OnGPU

case = torch.load(sys.argv[1])
tvl1_gpu.TILES = (tvl1_gpu.Tile(**case["tile"]),)
tvl1_gpu.BLOCK = 1024  # the interpreter's time goes by the number of programs
method = TVL1OnGPU(Motion(method="tvl1", parameters=case["parameters"]), torch.device("cpu"))
torch.save(method.motion(case["frames"].numpy(), case["gap"]), sys.argv[2])
"""


def interpreted(
    folder: Path, frames: torch.Tensor, gap: int, tile: Tile, values: dict[str, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The kernels' flow and the definition's."""
    case = {"frames": frames, "gap": gap, "parameters": values, "tile": asdict(tile)}
    torch.save(case, folder / "case.pt")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", _SCRIPT, str(folder / "case.pt"), str(folder / "flow.pt")]
    subprocess.run(command, check=True, env=environment)
    frames = frames[:, None].float()
    reach = abs(gap)
    first, second = (frames[:-reach], frames[reach:]) if gap > 0 else (frames[reach:], frames[:-reach])
    return torch.load(folder / "flow.pt"), defined_tvl1(first, second, TVL1Parameters(**values))


def noisy(frames: np.ndarray) -> torch.Tensor:
    noise = torch.randint(0, 9, frames.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return torch.from_numpy(frames) // 2 + noise


@pytest.mark.parametrize("gap", [1, -2])
def test_kernels_in_the_interpreter_equal_the_definition(tmp_path: Path, gap: int) -> None:
    """Tiles of 16 px with halos of 3 and 1 (4 iterations) on a frame of 3 × 3 tiles: seams and borders would show.

    Three pairs are computed as four, the last of which is dropped."""
    frames = noisy(moving_frames(4, 21, 27, (1, 1), seed=2))
    values = {"num_scales": 2, "num_warps": 2, "iterations": 4}
    flow, wanted = interpreted(tmp_path, frames, gap, Tile(16, 16, 3, 4), values)
    assert wanted.abs().max() > 0.5
    torch.testing.assert_close(flow, wanted, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "tile", [TILES[0], *(pytest.param(tile, marks=pytest.mark.soak) for tile in TILES[1:])], ids=str
)
def test_the_tiles_that_a_gpu_runs_equal_the_definition(tmp_path: Path, tile: Tile) -> None:
    """At full size, over several tiles; the last go does fewer iterations than fit."""
    frames = noisy(moving_frames(2, 40, 66, (1, -1), seed=4))
    values = {"num_scales": 1, "num_warps": 1, "iterations": tile.iterations + 2}
    flow, wanted = interpreted(tmp_path, frames, 1, tile, values)
    assert wanted.abs().max() > 0.3
    torch.testing.assert_close(flow, wanted, atol=2e-3, rtol=0)


_POINTERS = {"u_in", "u_out", "p_in", "p_out", "constants", "levels"}
_COMPILED = """
import json, re, subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pipeline_lib.flow.tvl1 import triton_solver as tvl1_triton

kernel, signature, constants, warps, capability = json.loads(sys.argv[1])
source = ASTSource(getattr(tvl1_triton, kernel), signature, constants)
compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
assembler = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
    file.write(compiled.asm["ptx"])
    file.flush()
    architecture = re.search(r"\\.target (\\w+)", compiled.asm["ptx"])[1]
    command = [str(assembler), "-v", f"--gpu-name={architecture}", file.name, "-o", file.name + ".cubin"]
    outcome = subprocess.run(command, check=True, capture_output=True, text=True)
    Path(file.name + ".cubin").unlink()
print(re.search(r"(\\d+) bytes spill stores", outcome.stderr)[1])
"""


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("kernel", ["iterate_tiles", "prepare_warp"])
def test_kernels_fit_the_registers_of_a_gpu(kernel: str, capability: int) -> None:
    """Compiled to machine code for an A100 and an H100, for which no card is needed: the first tile spills nothing."""
    tile = TILES[0]
    constants = {"COUNT": tile.iterations, "ROWS": tile.rows, "COLUMNS": tile.columns}
    if kernel == "prepare_warp":
        constants = {"FILTER": 1, "BLOCK": BLOCK}
    names = inspect.signature(getattr(tvl1_triton, kernel).fn).parameters
    kinds = dict.fromkeys(_POINTERS, "*fp32") | dict.fromkeys(constants, "constexpr")
    kinds |= dict.fromkeys(("height", "width", "first_offset", "second_offset"), "i32")
    signature = {name: kinds.get(name, "fp32") for name in names}
    warps = tile.num_warps if kernel == "iterate_tiles" else 4
    words = json.dumps([kernel, signature, constants, warps, capability])
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", _COMPILED, words]
    outcome = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    assert int(outcome.stdout.split()[-1]) == 0


def test_running_out_of_memory_gives_the_graphs_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device with room for four pairs in all: three are captured, and two are given back for the next three."""
    solvers: weakref.WeakSet[Any] = weakref.WeakSet()

    class Solver:
        def __init__(self, num_frames: int, height: int, width: int, gap: int, *_: Any) -> None:
            self.num_pairs = num_frames - gap
            if self.num_pairs + sum(solver.num_pairs for solver in solvers) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            solvers.add(self)

        def __call__(self, frames: torch.Tensor) -> torch.Tensor:
            return (frames[1:] - frames[:-1]).float().expand(-1, 2, -1, -1)

    monkeypatch.setattr(tvl1_gpu, "BatchedTVL1", Solver)
    monkeypatch.setattr(TVL1OnGPU, "pairs_per_call", lambda *_: 1)
    method = TVL1OnGPU(Motion(method="tvl1"), torch.device("cpu"))
    frames = np.arange(9, dtype=np.uint8)[:, None, None].repeat(16, 1).repeat(16, 2) * 3
    for count in (4, 9):
        images = motion_images(method, frames[:count], 1)
        assert images.shape[0] == count - 1 and (images[:, 0, 0] == 128 + round(127 * 3 / 20)).all()
    assert "with 8 pairs: going on with 4" in capsys.readouterr().err
    assert {solver.num_pairs for solver in solvers} == {4}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_captured_graph_equals_the_definition_on_a_gpu() -> None:
    from pipeline_lib.flow.tvl1.gpu import BatchedTVL1

    device = torch.device("cuda")
    solver = BatchedTVL1(4, 120, 160, 1, TVL1Parameters(), device)
    for step in ((2, 1), (-1, 0)):
        frames = torch.from_numpy(moving_frames(4, 120, 160, step)).to(device)[:, None].float()
        # Run again it gives the same; every tile gives the same.
        flow = solver(frames).clone()
        assert torch.equal(flow, solver(frames))
        for tile in TILES:
            other = BatchedTVL1(4, 120, 160, 1, TVL1Parameters(), device, tile)(frames)
            torch.testing.assert_close(flow, other, atol=1e-3, rtol=0)
        difference = flow - defined_tvl1(frames[:-1], frames[1:], TVL1Parameters())
        assert difference.norm(dim=1).mean() < 0.01
