"""Search spaces as Ray Tune writes them."""

from service.spec.methods.search import Distribution
from workers.tune.searchers import hyperparameters, tune_space


def test_choices_of_any_kind_come_back_as_they_were() -> None:
    options = [{"name": "sgd", "momentum": 0.5}, "adam"]
    space = {"optimizer": Distribution(choice=options), "learning_rate": Distribution(loguniform=[0.1, 1.0])}
    assert list(tune_space(space)["optimizer"].categories) == [0, 1]
    assert hyperparameters(space, {"optimizer": 0, "learning_rate": 0.2, "other": 1}) == {
        "optimizer": options[0],
        "learning_rate": 0.2,
    }
