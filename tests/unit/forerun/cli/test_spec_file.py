from pathlib import Path

import pytest

from tests.unit.forerun.cli.command_line import Forerun


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("spec.yaml", b"model: [lenet5\nepochs: 3\n", "line 2, column 7"),
        ("spec.json", b'{"model": "lenet5",}', "line 1 column 20"),
        ("spec.yaml", b"- lenet5\n", "must hold fields"),
        ("spec.yaml", b"", "must hold fields"),
        ("spec.yaml", b"\xff\xfe", "can't decode byte 0xff"),
        ("spec.yaml", b"model: !!python/object:os.system x\n", "could not determine a constructor"),
        ("spec.yaml", b"epochs: !!set {a, b}\n", "not JSON serializable"),
        ("spec.yaml", b"a: &a [*a]\n", "the alias *a is not taken; write it out"),
        ("spec.yaml", b"a: &a [1]\nb: [*a, *a]\n", "line 2, column 5"),
        ("spec.yaml", b"epochs: 1\nmodel: lenet5\nepochs: 2\n", "epochs stands there twice; keep one of them"),
        ("spec.yaml", b"warmup: {epochs: 1, epochs: 2}\n", "epochs stands there twice; keep one of them"),
        ("spec.yaml", b"[" * 1000, "nested too deeply"),
        ("spec.json", b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
        ("spec.json", b'{"warmup": {"epochs": 1, "epochs": 2}}', "epochs: stands there twice; keep one of them"),
    ],
)
def test_a_file_that_is_no_spec_exits_2_and_says_why(
    forerun: Forerun, tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    result = forerun("submit", str(tmp_path / name))
    assert result.exit_code == 2
    assert why in result.stderr
    assert str(tmp_path / name) in result.stderr
