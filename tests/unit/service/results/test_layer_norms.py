import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.results.layer_norms import curves
from service.store.records import LayerEpoch


def layer(name, epoch, lwn, lgn=None, trust_ratio=None, every=10):
    first_step = (epoch - 1) * 100
    return LayerEpoch("stpt", "stpt", 1, epoch, 1, name, first_step, every, lwn, lgn or [1.0] * len(lwn), trust_ratio)


def test_the_norm_ratio():
    one = layer("a", 1, [3.0, 2.0, None, 1.0, 0.0], [1.5, 0.0, 1.0, None, 2.0])
    assert one.lnr == [2.0, None, None, None, 0.0]
    assert list(one.steps) == [0, 10, 20, 30, 40]


def test_curves_are_the_epochs_of_each_layer():
    epochs = [layer(name, epoch, [epoch, epoch + 0.5], trust_ratio=[0.1, 0.2]) for epoch in (1, 2) for name in "ba"]
    b, a = curves(epochs, most_points=4)
    assert (b.layer, a.layer) == ("b", "a")  # from the input on
    assert a.steps == b.steps == [0, 10, 100, 110]
    assert a.lwn == a.lnr == [1, 1.5, 2, 2.5]
    assert a.lgn == [1.0] * 4
    assert a.trust_ratio == [0.1, 0.2, 0.1, 0.2]
    assert curves(epochs[::2], most_points=4)[0].trust_ratio == [0.1, 0.2, 0.1, 0.2]
    assert curves([layer("a", 1, [1.0])], most_points=4)[0].trust_ratio == []


@pytest.mark.parametrize(("most_points", "steps"), [(4, [0, 10, 100, 110]), (3, [0, 100]), (1, [0])])
def test_curves_are_thinned(most_points, steps):
    [curve] = curves([layer("a", 1, [1.0, 2.0]), layer("a", 2, [3.0, 4.0])], most_points)
    assert curve.steps == steps
    assert len(curve.lwn) == len(curve.lgn) == len(curve.lnr) == len(steps)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 100))
def test_no_more_points_than_asked_for_and_the_first_of_all(samples, most_points):
    [curve] = curves([layer("a", n, [1.0] * count) for n, count in enumerate(samples, 1)], most_points)
    assert 1 <= len(curve.steps) <= most_points
    assert curve.steps[0] == 0


def test_no_epoch_no_curve():
    assert curves([], most_points=10) == []
