"""Streams: each batch is read once an epoch for all members, and training on them is training on arrays in that order."""

from collections.abc import Iterator
from typing import Any

import keras
import networks
import numpy as np
import pytest

import regularity as rg
from regularity.population import _lanes

SIZE, EPOCHS = 16, 3
RECIPES = [{}, {"l2": 1e-2, "dropout": 0.4}]


class Batches(keras.utils.PyDataset):
    """Batches of the rows in order, the last one ragged; counts how often each is read."""

    def __init__(self, x: Any, y: Any) -> None:
        super().__init__()
        self.x, self.y, self.reads = x, y, [0] * -(-len(x) // SIZE)

    def __len__(self) -> int:
        return len(self.reads)

    def __getitem__(self, index: int) -> Any:
        self.reads[index] += 1
        rows = slice(SIZE * index, SIZE * (index + 1))
        return self.x[rows], self.y[rows]


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """Two batches train in one call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_lanes, "_BLOCK_STEPS", 2)
        yield


@pytest.fixture(scope="module")
def data() -> tuple[Any, Any]:
    return networks.rows(SIZE * 4 + 5)  # more than one block, and a ragged end


@pytest.fixture(scope="module")
def user() -> Any:
    return networks.dense()


@pytest.fixture(scope="module")
def expected(user: Any, data: tuple[Any, Any]) -> list[Any]:
    """The members trained on arrays in the order of the stream."""
    return rg.train(user, *data, RECIPES, seeds=2, epochs=EPOCHS, batch_size=SIZE, shuffle=False, validation_data=data)


def check(members: list[Any], expected: list[Any]) -> None:
    for member, other in zip(members, expected, strict=True):
        assert networks.distance(member.model, other.model) < 1e-6
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            np.testing.assert_allclose(member.history[name], other.history[name], atol=1e-6)


def stream(kind: str, x: Any, y: Any) -> Any:
    if kind == "PyDataset":
        return Batches(x, y)
    if kind == "generator":
        return (Batches(x, y)[i] for i in range(len(Batches(x, y))))
    if kind == "tf.data":
        tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: make test EXTRAS=dev,tensorflow")
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(SIZE)
    torch = pytest.importorskip("torch", reason="torch is not installed: make test EXTRAS=dev,torch")
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=SIZE)


@pytest.mark.parametrize("kind", ["PyDataset", "generator", "tf.data", "DataLoader"])
def test_stream_trains_as_arrays_do(kind: str, user: Any, data: tuple[Any, Any], expected: list[Any]) -> None:
    members = rg.train(
        user, stream(kind, *data), recipes=RECIPES, seeds=2, epochs=EPOCHS, validation_data=stream(kind, *data)
    )
    check(members, expected)


def test_each_batch_is_read_once_an_epoch_for_all_members(user: Any, data: tuple[Any, Any]) -> None:
    batches = Batches(*data)
    rg.train(user, batches, recipes=RECIPES, seeds=2, epochs=EPOCHS)
    assert sum(batches.reads) <= EPOCHS * len(batches) + 2  # and a look at the first ones, for their form
    assert min(batches.reads) == EPOCHS


def test_stream_ends_an_epoch_as_keras_does(user: Any) -> None:
    class Shuffled(Batches):
        def on_epoch_end(self) -> None:
            self.x, self.y = self.x[::-1], self.y[::-1]

    x, y = networks.rows(40)
    (member,) = rg.train(user, Shuffled(x, y), recipes={}, epochs=2, init="keep")
    alone = rg.Recipe().apply(user, seed=0)
    history = alone.fit(Shuffled(x, y), epochs=2, shuffle=False, verbose=0).history
    np.testing.assert_allclose(member.history["loss"], history["loss"], atol=1e-5)
    assert networks.distance(member.model, alone) < 1e-5


class Ragged(keras.utils.PyDataset):
    """Sequences that are padded to one length in each batch, not in all."""

    LENGTHS = (5, 7, 7, 9, 5, 12)

    def __len__(self) -> int:
        return len(self.LENGTHS)

    def __getitem__(self, index: int) -> Any:
        random = np.random.default_rng(index)
        return random.integers(0, 20, (SIZE, self.LENGTHS[index])), random.integers(0, 2, SIZE)


def test_batches_may_have_rows_of_different_lengths() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Embedding(20, 4), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential([keras.Input((None,)), *layers])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    together, _ = rg.train(model, Ragged(), seeds=2, epochs=2, init="keep", verbose=0)
    alone = keras.models.clone_model(model)
    alone.set_weights(model.get_weights())
    alone.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    expected = alone.fit(Ragged(), epochs=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(together.history["loss"], expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"rows have one shape.*\(5,\).*\(7,\).*`keras.utils.pad_sequences`"):
        rg.path(model, Ragged(), strengths=2, validation_data=Ragged(), epochs=1, verbose=0)


def test_weights_of_rows_come_with_the_stream(user: Any, data: tuple[Any, Any]) -> None:
    x, y = data
    weight = np.random.default_rng(1).uniform(0, 2, len(x)).astype("float32")

    def batches() -> Iterator[Any]:
        for i in range(0, len(x), SIZE):
            yield x[i : i + SIZE], y[i : i + SIZE], weight[i : i + SIZE]

    members = rg.train(user, batches(), recipes=RECIPES, epochs=1)
    arrays = rg.train(user, x, y, RECIPES, epochs=1, batch_size=SIZE, shuffle=False, sample_weight=weight)
    for member, other in zip(members, arrays, strict=True):
        np.testing.assert_allclose(member.history["loss"], other.history["loss"], atol=1e-6)


def test_member_that_diverges_on_a_stream_leaves_the_others_alone(user: Any, data: tuple[Any, Any]) -> None:
    calm = {"l2": 1e-2, "dropout": 0.4}
    recipes = [calm, {**calm, "learning_rate": 1e30}]
    first, wild = rg.train(user, Batches(*data), recipes=recipes, epochs=EPOCHS, init="keep")
    alone, _ = rg.train(user, Batches(*data), recipes=[calm, calm], epochs=EPOCHS, init="keep")
    assert wild.diverged == 1
    assert np.isnan(wild.history["loss"]).all()
    assert all(np.isfinite(w).all() for w in wild.model.get_weights())
    assert first.diverged is None
    assert first.history == alone.history
    assert networks.distance(first.model, alone.model) == 0


def test_callbacks_on_a_generator(user: Any, data: tuple[Any, Any]) -> None:
    members = rg.train(
        user,
        stream("generator", *data),
        recipes=RECIPES,
        epochs=2,
        callbacks=[keras.callbacks.TerminateOnNaN()],
        init="keep",
    )
    assert [len(member.history["loss"]) for member in members] == [2, 2]
