from pathlib import Path

import pytest

from service.spec.file import read_spec_file


def test_yaml_is_read_as_people_mean_it(tmp_path: Path) -> None:
    path = tmp_path / "spec.yml"
    path.write_text("a: [5e-4, .5, 1., -3, true, null, ~, on, 2024-01-01, 1_000, 1:30]\nb:\nc: '5'\n")
    plain = ["on", "2024-01-01", "1_000", "1:30"]
    assert read_spec_file(path) == {"a": [0.0005, 0.5, 1.0, -3, True, None, None, *plain], "b": None, "c": "5"}


def test_json_may_be_indented_with_tabs(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_text('{\n\t"epochs": 3\n}')
    assert read_spec_file(path) == {"epochs": 3}


def test_what_cannot_be_read_is_told_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.yaml cannot be read: .*No such file"):
        read_spec_file(tmp_path / "absent.yaml")
