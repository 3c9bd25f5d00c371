"""Parameters and multiply-adds against the papers' and torchvision's."""

import pytest

from pipeline_lib.models.complexity import count, rows


def test_the_paper_counted_i3d_without_its_second_branch() -> None:
    found = count("i3d", 64, 224, counting="weights", options={"branch_2_kernel": 1})
    assert found.parameters / 1e6 == pytest.approx(12.06, abs=0.005)
    assert found.gmacs == pytest.approx(107.89, abs=0.01)


def test_torchvisions_counts() -> None:
    for name, frames, side, parameters, gmacs in (
        ("s3d", 16, 224, 8_320_048, 17.979),
        ("r3d_18", 16, 112, 33_371_472, 40.697),
        ("mc3_18", 16, 112, 11_695_440, 43.343),
        ("r2plus1d_18", 16, 112, 31_505_325, 40.519),
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


@pytest.mark.parametrize("name", ["r2plus1d_18_per_convolution", "r2plus1d_34_per_convolution"])
def test_factorised_pairs_have_about_as_many_weights_as_3d(name: str) -> None:
    full = count(name.replace("2plus1d", "3d").removesuffix("_per_convolution"), 8, 32, counting="weights").parameters
    assert count(name, 8, 32, counting="weights").parameters == pytest.approx(full, rel=1e-3)


def test_gating_costs_next_to_nothing() -> None:
    assert count("s3dg_slim", 64, 224).gmacs - count("s3d_slim", 64, 224).gmacs < 0.01
    assert count("s3dg_slim", 64, 224).parameters - count("s3d_slim", 64, 224).parameters == pytest.approx(
        1.22e6, rel=0.01
    )
