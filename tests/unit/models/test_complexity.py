"""Parameters and multiply-adds against the papers' and torchvision's."""

import json

import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.models.complexity import count, rows
from pipeline_lib.models.inception3d import MIXED


def test_the_paper_counted_i3d_without_its_second_branch() -> None:
    found = count("i3d", 64, 224, counting="weights", options={"branch_2_kernel": 1})
    assert found.parameters / 1e6 == pytest.approx(12.06, abs=0.005)
    assert found.gmacs == pytest.approx(107.89, abs=0.01)


def test_torchvisions_counts() -> None:
    for name, frames, side, parameters, gmacs in (
        ("torchvision/s3d", 16, 224, 8_320_048, 17.979),
        ("torchvision/r3d_18", 16, 112, 33_371_472, 40.697),
        ("torchvision/mc3_18", 16, 112, 11_695_440, 43.343),
        ("torchvision/r2plus1d_18", 16, 112, 31_505_325, 40.519),
    ):
        found = count(name, frames, side)
        assert found.parameters == parameters
        assert found.gmacs == pytest.approx(gmacs, abs=0.0006)


def test_table_2_of_r2plus1d() -> None:
    table = [row for row in rows() if row.source == "R(2+1)D, Table 2"]
    assert len(table) == 12
    for row in table:
        found = count(row.name, row.num_frames, row.side, counting=row.counting).parameters / 1e6
        if row.name == "mc5_18":
            assert found == pytest.approx(row.paper["parameters_m"], abs=0.06)
        else:
            assert round(found, 1) == row.paper["parameters_m"], row.name


@pytest.mark.parametrize("name", ["r2plus1d_18", "r2plus1d_34"])
def test_factorised_pairs_have_about_as_many_weights_as_3d(name: str) -> None:
    full = count(name.replace("2plus1d", "3d"), 8, 32, counting="weights").parameters
    assert count(name, 8, 32, counting="weights").parameters == pytest.approx(full, rel=1e-3)


@pytest.mark.parametrize("depth", [18, 34])
def test_each_pair_of_r2plus1d_has_its_own_width(depth: int) -> None:
    """VMZ's add_conv, written anew: M of each convolution from its own channels."""

    def pair(inside: int, out: int) -> int:
        middle = 27 * inside * out // (9 * inside + 3 * out)
        return 9 * inside * middle + 3 * middle * out

    expected, channels = 3 * 45 * 49 + 45 * 64 * 3 + 512 * 400, 64
    for width, blocks in zip((64, 128, 256, 512), {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}[depth], strict=True):
        expected += pair(channels, width) + (2 * blocks - 1) * pair(width, width)
        # The shortcut's projection.
        expected += channels * width if channels != width else 0
        channels = width
    assert count(f"r2plus1d_{depth}", 8, 112, counting="weights").parameters == expected
    assert f"{expected / 1e6:.1f}" == {18: "33.3", 34: "63.6"}[depth]


def test_every_network_of_the_papers_tables_stands_beside_its_figure() -> None:
    found = {(row.name, tuple(row.options)): row for row in rows() if row.source.startswith("S3D-G")}
    assert {name for name, options in found if not options} == {
        *("i3d", "s3d_paper", "s3d_slim", "s3dg_paper", "s3dg_slim", "fast_s3d")
    }
    assert found["s3dg_paper", ()].paper == {"parameters_m": 11.56, "gmacs": 71.38}
    for (name, options), row in found.items():
        counted = count(row.name, row.num_frames, row.side, counting=row.counting, options=row.options)
        agrees = abs(counted.gmacs - row.paper["gmacs"]) < 0.01
        assert agrees == (name == "i3d" and bool(options)) != ("no variant" in row.note or "DeepMind" in row.note)


def test_gating_never_makes_a_network_cheaper() -> None:
    """Table 2 has S3D-G above S3D in parameters and in multiply-adds."""
    plain, gated = count("s3d_paper", 64, 224), count("s3dg_paper", 64, 224)
    assert gated.parameters > plain.parameters and gated.gmacs > plain.gmacs
    # A gate of C channels has C² + C numbers.
    widths = [64, 192]
    for name in MIXED.values():
        widths += [name[0], name[2], name[4], name[5]]
    assert gated.parameters - plain.parameters == sum(c * c + c for c in widths)


def test_gating_costs_next_to_nothing() -> None:
    assert count("s3dg_slim", 64, 224).gmacs - count("s3d_slim", 64, 224).gmacs < 0.01
    assert count("s3dg_slim", 64, 224).parameters - count("s3d_slim", 64, 224).parameters == pytest.approx(
        1.22e6, rel=0.01
    )


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json", "torchvision/s3d", "fast_s3d"]) == 0
    table = json.loads(capsys.readouterr().out)
    first = table[0]
    assert first["name"] == "torchvision/s3d"
    assert first["parameters"] == 8_320_048
    assert first["gmacs"] == pytest.approx(17.979, abs=0.001)
    fast = next(entry for entry in table if entry["name"] == "fast_s3d")
    assert fast["paper"] == {"gmacs": 43.47}
    assert fast["difference"]["gmacs"] == pytest.approx(fast["gmacs"] - 43.47, abs=0.001)
    assert main(["models", "s3dg_slim"]) == 0
    assert "no variant known to us" in capsys.readouterr().out
    assert main(["models", "nonsense"]) == 2
