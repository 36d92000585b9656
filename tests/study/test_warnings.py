"""What is ignored on purpose, and by whom: filters of warnings are the whole process's."""

import threading
import warnings

import pytest

from regularity.study._warnings import ignoring

EXPECTED = {"message": "as expected"}


def test_only_what_was_named_is_ignored_and_only_meanwhile():
    with ignoring(EXPECTED):
        warnings.warn("as expected, as it was", stacklevel=1)
        with pytest.raises(UserWarning, match="something else"):
            warnings.warn("something else", stacklevel=1)
    with pytest.raises(UserWarning, match="as expected"):
        warnings.warn("as expected", stacklevel=1)


@pytest.mark.parametrize("first_is_long", [True, False])
def test_a_thread_that_is_done_takes_nothing_from_another(first_is_long):
    began, second_began, first_ended = threading.Event(), threading.Event(), threading.Event()
    caught = []

    def first():
        with ignoring({"message": "of the first"}, long=first_is_long):
            began.set()
            second_began.wait(0.5)  # where the second waits for the first, it does not
            warnings.warn("of the first", stacklevel=1)
        first_ended.set()

    def second():
        began.wait()
        try:
            with ignoring(EXPECTED):
                second_began.set()
                if not first_is_long:
                    first_ended.wait(60)
                warnings.warn("as expected", stacklevel=1)
        except UserWarning as error:
            caught.append(error)

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caught == []
    with pytest.raises(UserWarning, match="as expected"):  # and all is as it was before
        warnings.warn("as expected", stacklevel=1)


def test_what_a_report_draws_leaves_the_search_beside_it_alone(monkeypatch):
    """A surrogate that is fitted for a page took back what the search ignores of Optuna."""
    import numpy as np
    import optuna
    from sklearn.gaussian_process import GaussianProcessRegressor

    from regularity.study._rule import surrogate
    from regularity.study._store import quiet_optuna

    fitting, asked, drawn = threading.Event(), threading.Event(), threading.Event()
    fit = GaussianProcessRegressor.fit

    def slowly(self, *rows):
        fitting.set()
        asked.wait(0.5)
        return fit(self, *rows)

    monkeypatch.setattr(GaussianProcessRegressor, "fit", slowly)
    random = np.random.default_rng(0)

    def draw():
        surrogate(random.uniform(size=(8, 2)), random.normal(size=8), np.full(8, np.nan))
        drawn.set()

    page = threading.Thread(target=draw)
    page.start()
    assert fitting.wait(60)
    with quiet_optuna():
        asked.set()
        drawn.wait(60)
        optuna.samplers.TPESampler(multivariate=True, group=True)  # which Optuna calls experimental
    page.join()
