import json
from pathlib import Path

from tests.unit.forerun.cli.command_line import Forerun
from tests.unit.forerun.service_double import answer, experiment_facts, job


def test_experiments_are_listed_without_a_name(forerun: Forerun) -> None:
    studies = {"items": [experiment_facts()], "scales": ["paper"]}
    result = forerun("experiment", "list", answers=[answer(studies)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1] == "mix   STPT   10, 11   1     All of it."


def test_experiment_submits_a_study_with_the_keys_of_a_file(forerun: Forerun, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("name: mine\nepochs: 3\n")
    submitted = answer({"experiment": "mix-1", "items": [job(name="mix")]}, 202)
    words = ["experiment", "run", "mix", "--scale", "cifar10", "--spec", str(tmp_path / "more.yaml")]
    words += ["--priority", "5", "--time-limit", "3600"]
    result = forerun(*words, answers=[submitted])
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["job", "job-1"]
    assert result.stderr == "List them with: forerun jobs --experiment mix-1\n"
    sent_document = json.loads(forerun.script.requests[0].content)
    assert (sent_document["name"], sent_document["scale"]) == ("mix", "cifar10")
    assert sent_document["spec"] == {"name": "mine", "epochs": 3}
    assert (sent_document["priority"], sent_document["time_limit"]) == (5, 3600)
