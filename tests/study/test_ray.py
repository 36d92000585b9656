"""A search on a real Ray cluster of two nodes, one of which is killed in the middle."""

import os
import time

import keras
import numpy as np
import pandas as pd
import pytest

import regularity as rg
from regularity.population import _ray
from regularity.study import _search
from regularity.study._store import Store

ray = pytest.importorskip("ray", reason="needs Ray; to run this: make test EXTRAS=dev,ray")
pytestmark = [
    # Ray starts its processes by fork and exec at once, which is safe
    pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(61, 4)).astype("float32")  # folds of unlike sizes, at the border of a step
Y = (X[:, 0] + RNG.normal(size=61) > 0).astype("int64")
TRIALS = 8


def searched(*hidden, **settings):
    model = keras.Sequential(
        [keras.Input((4,)), *hidden, keras.layers.Dense(6, "relu", name="hidden"), keras.layers.Dense(2, "softmax", name="output")],
        name="net",
    )  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy")
    fixed = {"trials": TRIALS, "epochs": 3, "batch_size": 12, "storage": "sqlite://", "verbose": 0}
    return rg.search(model, X, Y, ["dropout", "l2"], **fixed | settings)


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}  # that a node is gone is noticed
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": soon}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def connected(cluster):
    ray.init(address=cluster.address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")


@pytest.fixture
def other(cluster):
    """A second node."""
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    return node


def test_a_node_that_dies_in_the_middle_costs_no_trial_and_doubles_none(cluster, other, connected, monkeypatch):
    monkeypatch.setattr(_search, "_LOOKED", (2, 4))  # how long to train is found, on the cluster too
    monkeypatch.setattr(_search, "_FEWEST_EPOCHS", 3)
    monkeypatch.setattr(_search, "_MOST_EPOCHS", 5)
    expected = searched(epochs=None)
    told = []
    add = Store.add

    def added(self, trial, *what):
        add(self, trial, *what)
        told.append(trial.number)
        if len(told) == 2:
            cluster.remove_node(other, allow_graceful=False)

    monkeypatch.setattr(Store, "add", added)
    found = searched(epochs=None, engine="ray")
    assert told == list(range(TRIALS))
    left_out = ["seconds"]
    pd.testing.assert_frame_equal(
        found.table.drop(columns=left_out), expected.table.drop(columns=left_out), check_exact=True
    )
    pd.testing.assert_frame_equal(found.comparison, expected.comparison, check_exact=True)


class Ends(keras.layers.Layer):
    """Ends whatever process it trains in, but that of the test."""

    def __init__(self, process, **kwargs):
        super().__init__(**kwargs)
        self.process = process

    def call(self, x, training=False):
        if training and os.getpid() != self.process:
            os._exit(1)
        return x

    def get_config(self):
        return {**super().get_config(), "process": self.process}


class Raises(Ends):
    def call(self, x, training=False):
        if training and os.getpid() != self.process:
            raise RuntimeError("not on this machine")
        return x


def test_a_node_that_dies_while_its_workers_are_idle_is_not_blamed_on_members(cluster, connected, monkeypatch):
    """As many as would count as deaths of the same members, if each were given them in turn."""
    monkeypatch.setattr(_ray, "_DEATHS", 2)
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    chunk, add, pools, told = _ray.Cluster.chunk, Store.add, [], []

    def chunked(self, tasks):
        pools.append(self)
        return chunk(self, tasks)

    def added(self, trial, *what):
        add(self, trial, *what)
        told.append(trial.number)
        if len(told) == TRIALS:  # only the race and the judging are still to come
            until(lambda: len(pools[0]._idle) == len(pools[0].lanes))
            pools[0]._idle.sort(
                key=lambda worker: pools[0]._place_of[worker]["node"] == node.node_id
            )  # they come first
            cluster.remove_node(node, allow_graceful=False)
            until(lambda: sum(each["Alive"] for each in ray.nodes()) == 1)

    monkeypatch.setattr(_ray.Cluster, "chunk", chunked)
    monkeypatch.setattr(Store, "add", added)
    assert len(searched(engine="ray").table) == TRIALS


def until(holds, seconds=120.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_members_that_kill_their_workers_end_the_search(connected, monkeypatch):
    monkeypatch.setattr(_ray, "_DEATHS", 1)
    with pytest.raises(RuntimeError, match="workers of the cluster died"):
        searched(Ends(os.getpid()), engine="ray")


class EndsAtOnce(Ends):
    def __init__(self, process, **kwargs):
        super().__init__(process, **kwargs)
        if os.getpid() != process:
            os._exit(1)


def test_workers_that_die_while_they_start_are_told_of_to_those_who_come_later(connected, monkeypatch):
    monkeypatch.setattr(_ray, "_DEATHS", 1)
    submit = _ray.Cluster.submit

    def later(self, tasks, *arguments):
        self.chunk(tasks)
        until(lambda: not self._starting)
        return submit(self, tasks, *arguments)

    monkeypatch.setattr(_ray.Cluster, "submit", later)
    with pytest.raises(RuntimeError, match="die while they start"):
        searched(EndsAtOnce(os.getpid()), engine="ray")


def test_what_the_model_raises_is_raised_once(connected):
    with pytest.raises(RuntimeError, match="not on this machine"):
        searched(Raises(os.getpid()), engine="ray")


def test_another_engine_is_refused():
    with pytest.raises(ValueError, match="'local' or 'ray'"):
        searched(engine="spark")
