"""What a job's new version is compared with, as its folder says it."""

import pytest

from personas.errors import MaterialError
from personas.home.comparison_targets import (
    COMPARE_FILE,
    NO_COMPARISON,
    ComparisonTargets,
    NeighbourPaths,
    read_comparison_targets,
    write_comparison_targets,
)


def compare(home):
    neighbour = NeighbourPaths(
        persona="oda", adapter=str(home / "models/oda/v1"), job=str(home / "jobs/j1")
    )
    return ComparisonTargets(live=str(home / "models/ballast/v2"), neighbours=(neighbour,))


def test_what_is_written_is_read_and_moves_with_the_home(tmp_path):
    home = tmp_path / "home"
    folder = home / "jobs" / "j2"
    folder.mkdir(parents=True)
    write_comparison_targets(folder, compare(home))
    assert read_comparison_targets(folder) == compare(home)
    assert str(tmp_path) not in (folder / COMPARE_FILE).read_text()
    moved = home.rename(tmp_path / "elsewhere")
    assert read_comparison_targets(moved / "jobs" / "j2") == compare(moved)


def test_without_the_file_nothing_is_compared_and_a_damaged_one_is_an_error(tmp_path):
    assert read_comparison_targets(tmp_path) == NO_COMPARISON
    write_comparison_targets(tmp_path, NO_COMPARISON)
    assert read_comparison_targets(tmp_path) == NO_COMPARISON
    (tmp_path / COMPARE_FILE).write_text('{"live": 1}')
    with pytest.raises(MaterialError, match=f"{COMPARE_FILE} cannot be read"):
        read_comparison_targets(tmp_path)
