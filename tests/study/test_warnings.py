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


@pytest.mark.parametrize("first_to_leave", [0, 1])
def test_a_thread_that_is_done_takes_nothing_from_another(first_to_leave):
    inside, left = [threading.Event() for _ in range(2)], threading.Event()
    caught = []

    def ignores(who):
        try:
            if who == 1:
                assert inside[0].wait(60)
            with ignoring({"message": f"of {who}"}):
                inside[who].set()
                assert inside[1].wait(60)
                if who != first_to_leave:
                    assert left.wait(60)
                warnings.warn(f"of {who}", stacklevel=1)
            if who == first_to_leave:
                left.set()
        except Exception as error:
            caught.append(error)

    threads = [threading.Thread(target=ignores, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caught == []
    for who in range(2):  # and all is as it was before
        with pytest.raises(UserWarning, match=f"of {who}"):
            warnings.warn(f"of {who}", stacklevel=1)


def test_optuna_is_as_loud_as_before_whoever_was_quiet():
    import optuna

    from regularity.study._store import quiet_optuna

    before, first, second = optuna.logging.get_verbosity(), quiet_optuna(), quiet_optuna()
    first.__enter__()
    second.__enter__()  # of another thread, which ends later
    first.__exit__(None, None, None)
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    second.__exit__(None, None, None)
    assert optuna.logging.get_verbosity() == before


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
        asked.wait(60)
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
