"""Forward and training step of S3D and S3D-G against torchvision's eager s3d, in the same run.

Equal network: our ``torchvision/s3d`` with torchvision's weights, so that both compute the same loss. The reference
runs as a user of torchvision would run it: eager, float32, contiguous clips. Ours runs as the trainer runs it:
channels_last_3d, on a GPU with bfloat16 autocast too, eager and compiled. The cases take turns, so that a disturbance
hits all of them.
"""

import argparse
import copy
import ctypes
import gc
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from common import emit, say

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pipeline_lib.models.catalogue import resolve
from pipeline_lib.models.importing.publishers import convert
from pipeline_lib.models.importing.sources import SOURCES

NUM_CLASSES = 400
# Differences of the losses, as shares of the first: of any step, and of the mean over all. In float64 both networks
# give the same losses. In float32 torchvision's own first gradient is 2 % off its float64 one (a ReLU or a maximum that
# rounding tips over, magnified by normalisation over few samples): single steps scatter, their mean must not.
STEP_TOLERANCE, MEAN_TOLERANCE = 0.1, 0.02
VIEWS = {"view", "_unsafe_view", "t", "expand", "slice", "select", "detach", "permute", "unsqueeze", "squeeze", "alias"}


class ByteCounter(TorchDispatchMode):
    """Adds up the bytes of what every operation reads and writes, unfused."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation."""
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ not in VIEWS:
            leaves = torch.utils._pytree.tree_leaves((args, out))
            self.total += sum(x.numel() * x.element_size() for x in leaves if isinstance(x, Tensor))
        return out


def built(name: str) -> nn.Module:
    module, options = resolve(name)
    network: nn.Module = importlib.import_module(module).build(NUM_CLASSES, 3, **options)
    return network


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


class Case:
    """One way of running one network."""

    def __init__(self, name: str, network: nn.Module, clip: Tensor, labels: Tensor, bfloat16: bool = False) -> None:
        self.name, self.network, self.clip, self.labels = name, network, clip, labels
        self.bfloat16 = bfloat16
        self.times: dict[str, list[float]] = {"forward": [], "step": []}

    def autocast(self) -> Any:
        """The trainer's precision."""
        return torch.autocast("cuda", torch.bfloat16) if self.bfloat16 else nullcontext()

    def forward(self) -> None:
        """A forward pass without gradients."""
        with torch.no_grad(), self.autocast():
            self.network(self.clip)

    def step(self) -> float:
        """Forward and backward; returns the loss."""
        self.network.zero_grad(set_to_none=True)
        with self.autocast():
            loss = F.cross_entropy(self.network(self.clip).float(), self.labels)
        loss.backward()
        return loss.item()

    def measure(self, what: str, clock: Callable[[], float]) -> None:
        """Time one ``forward`` or ``step``."""
        run: Callable[[], Any] = getattr(self, what)
        synchronise(self.clip.device)
        start = clock()
        run()
        synchronise(self.clip.device)
        self.times[what].append(clock() - start)

    def peak_memory(self) -> float | None:
        """MiB that a step takes beyond what lay in memory before it."""
        if self.clip.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self.step()
            return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
        # Hand freed memory back first, or the step would take it again unseen.
        gc.collect()
        self.network.zero_grad(set_to_none=True)
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark of resident memory
        except OSError:
            return None
        before = resident("VmRSS")
        self.step()
        return round((resident("VmHWM") - before) / 2**10, 1)


def resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def torchvision_s3d(frames: int, side: int) -> nn.Module:
    """Torchvision's network; on clips too small for its 2×7×7 average pool the window is what is left, as ours."""
    network: nn.Module = torchvision.models.video.s3d(weights=None, num_classes=NUM_CLASSES, dropout=0.0)
    with torch.no_grad(), torch.device("meta"):
        shape = copy.deepcopy(network.features).eval().to("meta")(torch.empty(1, 3, frames, side, side)).shape
    network.avgpool = nn.AvgPool3d((min(2, shape[2]), min(7, shape[3]), min(7, shape[4])), 1)
    return network


def with_weights_of(reference: nn.Module) -> nn.Module:
    """Our ``torchvision/s3d`` with the weights of torchvision's: the same function."""
    state, _ = convert(SOURCES["torchvision/s3d"], reference.state_dict())
    network = built("torchvision/s3d")
    network.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("input_")})
    return without_dropout(network)


def without_dropout(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def cases_of(
    frames: int, side: int, batch: int, device: torch.device, compiled: bool, networks: list[str]
) -> list[Case]:
    torch.manual_seed(0)
    clip = (torch.rand(batch, 3, frames, side, side) * 2 - 1).to(device)
    labels = torch.arange(batch, device=device)
    reference = torchvision_s3d(frames, side)
    cases = [Case("torchvision s3d eager", reference.to(device), clip, labels)]
    last = clip.to(memory_format=torch.channels_last_3d)
    on_gpu = device.type == "cuda"
    for name in networks:
        network = with_weights_of(reference) if name == "torchvision/s3d" else without_dropout(built(name))
        network = network.to(device, memory_format=torch.channels_last_3d)
        cases.append(Case(f"{name} eager", network, last, labels, on_gpu))
        if compiled:
            cases.append(Case(f"{name} compiled", torch.compile(copy.deepcopy(network)), last, labels, on_gpu))
    return cases


def matrix_peak(device: torch.device, clock: Callable[[], float]) -> float:
    """Multiply-adds per second of a large matrix product, float32 on the CPU and bfloat16 on a GPU."""
    size = 8192 if device.type == "cuda" else 2048
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    return size**3 / best(lambda: a @ b, device, clock)


def copy_bandwidth(device: torch.device, clock: Callable[[], float]) -> float:
    """Bytes per second, read and written, of copying 256 MiB."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / best(lambda: target.copy_(source), device, clock)


def best(run: Callable[[], Any], device: torch.device, clock: Callable[[], float], repeats: int = 7) -> float:
    run()
    times = []
    for _ in range(repeats):
        synchronise(device)
        start = clock()
        run()
        synchronise(device)
        times.append(clock() - start)
    return min(times)


def measure(frames: int, side: int, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Every case at one size."""
    batch = options.batch or (4 if frames * side * side <= 16 * 112**2 else 1) * (8 if device.type == "cuda" else 1)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    say(f"{frames}×{side}², batch {batch}")
    cases = cases_of(frames, side, batch, device, options.compile, options.networks)
    losses = {case.name: case.step() for case in cases}
    equal = [case.name for case in cases if "s3dg_slim" not in case.name]
    spread = max(losses[name] for name in equal) - min(losses[name] for name in equal)
    say(f"losses of the equal networks differ by {spread:.1e}")
    for case in cases:
        case.forward()
        case.step()
    # A step at 64×224² takes seconds on a CPU.
    for _ in range(options.repeats or (7 if device.type == "cuda" or frames * side * side <= 16 * 112**2 else 3)):
        for case in cases:
            case.measure("forward", clock)
            case.measure("step", clock)
    peak, bandwidth = matrix_peak(device, clock), copy_bandwidth(device, clock)
    table: dict[str, Any] = {}
    for case in cases:
        forward, step = (statistics.median(case.times[what]) for what in ("forward", "step"))
        entry: dict[str, Any] = {
            "forward_clips_per_s": round(batch / forward, 3),
            "step_clips_per_s": round(batch / step, 3),
            "step_memory_mib": case.peak_memory(),
        }
        if "compiled" not in case.name:
            with FlopCounterMode(display=False) as flops:
                case.step()
            with ByteCounter() as counter:
                case.step()
            macs, moved = flops.get_total_flops() / 2, counter.total
        # Compiled, the multiply-adds are the eager network's; its bytes bound the fused traffic from above.
        entry["share_of_matrix_peak"] = round(macs / peak / step, 3)
        entry["share_of_copy_bandwidth"] = round(moved / bandwidth / step, 3)
        table[case.name] = entry
        say(f"  {case.name:24} {entry}")
    return {
        "batch": batch,
        "cases": table,
        "loss_difference": spread,
        "matrix_peak_gmacs": round(peak / 1e9, 1),
        "copy_gb_per_s": round(bandwidth / 1e9, 2),
    }


def loss_curves(
    steps: int, device: torch.device, compiled: bool, side: int = 64, frames: int = 16
) -> tuple[list[float], list[float]]:
    """Losses of torchvision's eager float32 s3d and of ours with its weights, as the trainer runs it, step by step.

    Both see the same clips in the same order, 4 of 8 at a time, and are trained by SGD.
    """
    torch.manual_seed(1)
    clips = torch.rand(8, 3, frames, side, side, device=device) * 2 - 1
    labels = torch.arange(8, device=device)
    reference = torchvision_s3d(frames, side)
    network = with_weights_of(reference).to(device, memory_format=torch.channels_last_3d)
    cases = [
        Case("torchvision", reference.to(device), clips, labels),
        Case("ours", torch.compile(network) if compiled else network, clips, labels, device.type == "cuda"),
    ]
    curves: list[list[float]] = []
    for case in cases:
        optimiser = torch.optim.SGD(case.network.parameters(), 1e-3)
        curve = []
        for step in range(steps):
            chosen = torch.arange(step * 4, step * 4 + 4, device=device) % 8
            case.clip, case.labels = clips[chosen], labels[chosen]
            if case.name == "ours":
                case.clip = case.clip.to(memory_format=torch.channels_last_3d)
            curve.append(case.step())
            optimiser.step()
        curves.append(curve)
    return curves[0], curves[1]


def compare_losses(
    steps: int,
    device: torch.device,
    compiled: bool,
    side: int = 64,
    frames: int = 16,
    tolerances: tuple[float, float] = (STEP_TOLERANCE, MEAN_TOLERANCE),
) -> dict[str, Any]:
    """How the two curves fall, and how far they part, as shares of the first loss.

    Raises:
        SystemExit: they part by more than the tolerances, of any step and of the mean.
    """
    theirs, ours = loss_curves(steps, device, compiled, side, frames)
    largest = max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) / abs(theirs[0])
    of_mean = abs(statistics.mean(theirs) - statistics.mean(ours)) / abs(theirs[0])
    say(
        f"{steps} steps, loss from {theirs[0]:.4f} to {theirs[-1]:.4f}: parted by {largest:.1e}, the mean {of_mean:.1e}"
    )
    if not (largest <= tolerances[0] and of_mean <= tolerances[1]):
        raise SystemExit(
            f"the losses part from torchvision's by {largest:.1e} of the first (at most {tolerances[0]:.0e} is "
            f"rounding), by {of_mean:.1e} in their mean (at most {tolerances[1]:.0e})"
        )
    return {
        "steps": steps,
        "first": round(theirs[0], 5),
        "first_of_ours": round(ours[0], 5),
        "last": round(theirs[-1], 5),
        "last_of_ours": round(ours[-1], 5),
        "largest_difference": float(f"{largest:.2e}"),
        "difference_of_means": float(f"{of_mean:.2e}"),
        "tolerances": list(tolerances),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["16x112", "64x224"], metavar="FRAMESxSIDE")
    parser.add_argument("--batch", type=int, help="clips per step (default: by size and device)")
    parser.add_argument("--repeats", type=int, default=0, help="default: 7, of large clips on a CPU 3")
    names = ["torchvision/s3d", "s3dg_slim"]
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    # On a CPU each of a network's two graphs takes its compiler most of a minute, to run slower than the eager network:
    # inductor knows neither that convolutions over time or space alone are 2D nor channels_last_3d pooling.
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="measure torch.compile too (default: on a GPU)",
    )
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, on a busy machine"
    )
    parser.add_argument(
        "--loss-steps", type=int, default=100, help="steps trained beside torchvision's; 0 leaves it out"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)
    has_gpu = torch.cuda.is_available()
    if not has_gpu:
        say("no GPU is present: only the CPU is measured")
    device = torch.device("cuda" if has_gpu and options.device != "cpu" else "cpu")
    if options.compile is None:
        options.compile = device.type == "cuda"
    sizes: dict[str, Any] = {}
    for text in options.sizes:
        frames, side = (int(part) for part in text.split("x"))
        sizes[text] = measure(frames, side, options, device)
    conditions: dict[str, Any] = {
        "device": device.type,
        "gpu": "measured" if device.type == "cuda" else "no GPU is present",
        "threads": torch.get_num_threads(),
        "clock": options.clock,
        "sizes": sizes,
    }
    if options.loss_steps:
        conditions["losses"] = compare_losses(options.loss_steps, device, options.compile)
    first = sizes[options.sizes[0]]["cases"]
    ours = max(entry["step_clips_per_s"] for name, entry in first.items() if name.startswith(options.networks[0] + " "))
    theirs = first["torchvision s3d eager"]["step_clips_per_s"]
    emit(f"training_step_{options.sizes[0]}", ours, "clips/s", theirs, conditions=conditions)


if __name__ == "__main__":
    main()
