"""Noise in the forward pass and in the batch: moments, masks and formulas, against Keras and NumPy."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage, special, stats
from sklearn.utils import murmurhash3_32

import regularity as rg
from regularity.catalogue import _draws, activations, batch, gradient, targets, update

LAYERS = {
    "SpatialDropout1D": ((6, 5, 4), "rate"),
    "SpatialDropout2D": ((6, 3, 3, 4), "rate"),
    "SpatialDropout3D": ((6, 2, 2, 2, 4), "rate"),
    "GaussianDropout": ((6, 4), "rate"),
    "GaussianNoise": ((6, 4), "stddev"),
    "AlphaDropout": ((6, 4), "rate"),
    "DropPath": ((6, 4), "rate"),
    "ShakeDrop": ((6, 4), "rate"),
    "TokenDropout": ((6, 5, 4), "rate"),
    "DropBlock2D": ((6, 9, 9, 4), "rate"),
}
each = pytest.mark.parametrize("name", LAYERS)


def array(tensor):
    return ops.convert_to_numpy(tensor)


def drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def noisy(name, strength, x, **how):
    return array(getattr(rg.layers, name)(strength, seed=1, **how)(x, training=True))


@each
def test_off_and_inference_are_the_identity_to_the_bit(name):
    x = drawn(LAYERS[name][0])
    np.testing.assert_array_equal(noisy(name, 0.0, x), x)
    np.testing.assert_array_equal(array(getattr(rg.layers, name)(0.5)(x)), x)


@each
def test_a_strength_raised_from_zero_acts_and_is_saved(name, tmp_path):
    shape, attribute = LAYERS[name]
    layer = getattr(rg.layers, name)(0.0, seed=1)
    model = keras.Sequential([keras.Input(shape[1:]), layer])
    x = drawn(shape)
    setattr(layer, attribute, 0.5)
    assert np.abs(array(model(x, training=True)) - x).max() > 0
    model.save(tmp_path / "model.keras")
    (loaded,) = keras.models.load_model(tmp_path / "model.keras").layers
    assert float(array(getattr(loaded, attribute))) == 0.5
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


@each
@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), float("inf"), "0.5", None])
def test_a_strength_out_of_range_is_refused(name, strength):
    with pytest.raises(ValueError, match=rf"`{LAYERS[name][1]}`.*from 0 to 1.*Received"):
        getattr(rg.layers, name)(strength)


@each
def test_whole_numbers_are_refused_in_training(name):
    with pytest.raises(ValueError, match="floating-point"):
        getattr(rg.layers, name)(0.5)(np.ones(LAYERS[name][0], "int32"), training=True)


@each
def test_the_strongest_is_finite_and_so_is_half_precision(name):
    x = drawn(LAYERS[name][0])
    assert np.isfinite(noisy(name, 1.0, x)).all()
    half = noisy(name, 0.5, x.astype("float16"), dtype="float16")
    assert half.dtype == np.float16
    assert np.isfinite(half).all()


@pytest.mark.parametrize("name", ["SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"])
def test_whole_feature_maps_are_dropped_at_the_rate(name):
    shape = (400, *LAYERS[name][0][1:-1], 16)
    found = noisy(name, 0.3, np.ones(shape, "float32")).reshape(400, -1, 16)
    np.testing.assert_array_equal(found, np.repeat(found[:, :1], found.shape[1], 1))
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.7], rtol=1e-6)
    assert stats.binomtest(int((found[:, 0] == 0).sum()), 6400, 0.3).pvalue > 1e-3


@pytest.mark.parametrize("name", ["SpatialDropout2D", "SpatialDropout3D"])
def test_channels_may_come_first(name):
    shape = (8, 4, *LAYERS[name][0][1:-1])
    found = noisy(name, 0.5, np.ones(shape, "float32"), data_format="channels_first").reshape(8, 4, -1)
    assert (found == found[:, :, :1]).all()
    assert len(np.unique(found)) == 2


def test_drop_path_takes_or_leaves_whole_rows_as_in_timm():
    x = drawn((4000, 3))
    found = noisy("DropPath", 0.25, x)
    kept = np.abs(found).max(1) > 0
    np.testing.assert_allclose(found, x * kept[:, None] / 0.75, rtol=1e-6)
    assert stats.binomtest(int(kept.sum()), 4000, 0.75).pvalue > 1e-3


def test_token_dropout_takes_whole_steps_at_the_rate():
    found = noisy("TokenDropout", 0.3, np.ones((200, 30, 4), "float32"))
    np.testing.assert_array_equal(found, np.repeat(found[..., :1], 4, -1))
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.7], rtol=1e-6)
    assert stats.binomtest(int((found[..., 0] == 0).sum()), 6000, 0.3).pvalue > 1e-3


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_drop_block_takes_squares_at_the_papers_rate_and_keeps_the_mean(size, data_format):
    height, width, rate = 12, 9, 0.2
    last = data_format == "channels_last"
    ones = np.ones((60, height, width, 16) if last else (60, 16, height, width), "float32")
    found = noisy("DropBlock2D", rate, ones, block_size=size, data_format=data_format)
    maps = (np.moveaxis(found, 3, 1) if last else found).reshape(-1, height, width)
    dropped = maps == 0
    for one in dropped[:200]:  # nothing but whole squares
        np.testing.assert_array_equal(ndimage.binary_opening(one, np.ones((size, size))), one)
    assert found.mean() == pytest.approx(1, abs=1e-5)
    assert len(np.unique(found)) == 2
    # the centre of a map is in as many squares as one has entries, each drawn with the paper's gamma
    gamma = rate * height * width / (size**2 * (height - size + 1) * (width - size + 1))
    centres = dropped[:, height // 2, width // 2]
    assert stats.binomtest(int(centres.sum()), len(centres), 1 - (1 - gamma) ** (size**2)).pvalue > 1e-3


@pytest.mark.parametrize("size", [0, 2.0, "3"])
def test_a_block_of_another_size_is_refused(size):
    with pytest.raises(ValueError, match=r"`block_size`.*whole number from 1.*Received"):
        rg.layers.DropBlock2D(0.1, block_size=size)


def test_temporal_activity_is_meritys_mean_over_a_batch():
    h = drawn((6, 5, 4))
    layer = keras.layers.Activation("linear", activity_regularizer=rg.regularizers.TemporalActivity(0.7))
    layer(ops.convert_to_tensor(h))
    (loss,) = layer.losses
    assert float(array(loss)) == pytest.approx(0.7 * ((h[:, 1:] - h[:, :-1]) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_temporal_activity_is_of_the_sequence_and_not_of_the_states(kind):
    penalty = rg.regularizers.TemporalActivity(0.7)
    layer = getattr(keras.layers, kind)(4, return_sequences=True, return_state=True, activity_regularizer=penalty)
    h = array(layer(ops.convert_to_tensor(drawn((6, 5, 3))))[0])
    expected = 0.7 * ((h[:, 1:] - h[:, :-1]) ** 2).mean()
    assert sum(float(array(loss)) for loss in layer.losses) == pytest.approx(expected, rel=1e-5)


def test_quantiles_are_those_of_scipy_for_numbers_as_they_are_drawn():
    whole = np.arange(-(2**23), 2**23, dtype="float32")
    x = (np.concatenate([whole[::7], whole[:1000], whole[-1000:]]) + np.float32(0.5)) * np.float32(2.0**-23)
    np.testing.assert_allclose(_draws.quantile(x), stats.norm.ppf((x.astype("float64") + 1) / 2), rtol=0, atol=1.5e-5)


def test_normal_numbers_are_normal_far_out_too_and_do_not_depend_on_one_another():
    numbers = array(_draws.normal((1000, 1000), keras.random.SeedGenerator(7)))
    assert stats.kstest(numbers.ravel(), "norm").pvalue > 1e-3
    for bound in (3.0, 4.0):  # on either side
        for beyond in (numbers > bound, numbers < -bound):
            assert stats.binomtest(int(beyond.sum()), numbers.size, stats.norm.sf(bound)).pvalue > 1e-3
    for axis, by in ((0, 1), (1, 1), (1, 64), (0, 500)):
        assert abs(float((numbers * np.roll(numbers, by, axis)).mean())) < 0.004  # four standard errors


def test_gaussian_dropout_and_noise_have_the_moments_of_keras():
    ones = np.ones((200, 200), "float32")
    # standard errors with 40000 draws: 0.005 of the mean, 0.004 of the deviation
    dropped, noise = noisy("GaussianDropout", 0.2, ones), noisy("GaussianNoise", 0.3, 0 * ones)
    assert dropped.mean() == pytest.approx(1, abs=0.01)
    assert dropped.std() == pytest.approx((0.2 / 0.8) ** 0.5, abs=0.01)
    assert stats.kstest(noise.ravel() / 0.3, "norm").pvalue > 1e-3


def test_alpha_dropout_is_keras_formula_and_keeps_mean_and_variance():
    x, rate, floor = drawn((300, 300)), 0.2, 1.6732632423543772 * 1.0507009873554805
    found = noisy("AlphaDropout", rate, x)
    a = ((1 - rate) * (1 + rate * floor**2)) ** -0.5
    dropped = np.isclose(found, a * (-floor) + a * floor * rate, atol=1e-5)
    np.testing.assert_allclose(found[~dropped], (a * x + a * floor * rate)[~dropped], atol=1e-5)
    assert stats.binomtest(int(dropped.sum()), x.size, rate).pvalue > 1e-4
    assert found.mean() == pytest.approx(0, abs=0.02)
    assert found.std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("p", [0.1, 0.4, 0.97])
def test_concrete_dropout_is_the_authors_program(p):
    """`concrete_dropout` and its regularizer as in the notebooks of Gal, Hron and Kendall, on the same uniform numbers."""
    x, eps = drawn((50, 8)), np.finfo("float32").eps
    u = array(_draws.uniform((50, 8), keras.random.SeedGenerator(3)))
    drop = np.log(p + eps) - np.log(1 - p + eps) + np.log(u + eps) - np.log(1 - u + eps)
    expected = x * (1 - special.expit(drop / 0.1)) / (1 - p)
    layer = rg.layers.ConcreteDropout(0.02, seed=3)
    layer.build(x.shape)
    layer.logit.assign(np.log(p / (1 - p)))
    np.testing.assert_allclose(array(layer(x, training=True)), expected, atol=1e-3)
    (loss,) = layer.losses
    assert float(array(loss)) == pytest.approx(0.02 * 8 * (p * np.log(p) + (1 - p) * np.log(1 - p)), rel=1e-4)
    assert float(array(layer.rate)) == pytest.approx(p, rel=1e-5)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_concrete_dropout_learns_by_the_gradient_of_the_authors_program(p, gradient):
    """By differences in double precision, over the numbers that were drawn."""
    x, weights = drawn((50, 8)), drawn((50, 8), 1)
    u = array(_draws.uniform((50, 8), keras.random.SeedGenerator(3))).astype("float64")

    def written_out(logit):
        z = special.expit((logit + np.log(u + 1e-7) - np.log(1 - u + 1e-7)) / 0.1)
        return float((weights * x * (1 - z) / special.expit(-logit)).sum())

    def ours(logit):
        dropped = activations.concrete_dropout(ops.convert_to_tensor(x), 0.1, keras.random.SeedGenerator(3), logit)
        return ops.sum(ops.convert_to_tensor(weights) * dropped)

    logit = special.logit(p)
    expected = (written_out(logit + 1e-6) - written_out(logit - 1e-6)) / 2e-6
    assert float(gradient(ours, np.float32(logit))) == pytest.approx(expected, rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("shape", [(4000, 3), (1000, 5, 12), (1000, 2, 3, 12)])
def test_concrete_dropout_drops_whole_features_at_its_rate(shape):
    found = noisy("ConcreteDropout", 0.01, np.ones(shape, "float32"))
    found = found.reshape(shape[0], -1, shape[-1])
    np.testing.assert_array_equal(found, np.repeat(found[:, :1], found.shape[1], 1))
    dropped = found[:, 0] < 0.5 / 0.9  # the mask is soft, but symmetric in the logit of what it is drawn by
    assert stats.binomtest(int(dropped.sum()), dropped.size, 0.1).pvalue > 1e-3


def test_concrete_dropout_off_or_at_inference_is_the_identity_to_the_bit_without_a_loss():
    x, layer = drawn((6, 4)), rg.layers.ConcreteDropout(0.0)
    np.testing.assert_array_equal(array(layer(x, training=True)), x)
    assert float(array(layer.losses[0])) == 0
    layer.strength = 0.3
    np.testing.assert_array_equal(array(layer(x)), x)
    assert not layer.losses
    assert np.abs(array(layer(x, training=True)) - x).max() > 0
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("logit", [-80.0, 80.0])
def test_concrete_dropout_is_finite_at_rates_of_0_and_1_and_in_half_precision(logit, gradient):
    x = ops.convert_to_tensor(drawn((6, 4)))

    def total(logit):
        generator = keras.random.SeedGenerator(0)
        dropped = activations.concrete_dropout(x, 0.1, generator, logit)
        return ops.sum(dropped) + activations.certainty_of_dropping(logit, 0.1, 4)

    assert np.isfinite(gradient(total, np.float32(logit)))
    half = noisy("ConcreteDropout", 0.5, array(x).astype("float16"), dtype="float16")
    assert half.dtype == np.float16
    assert np.isfinite(half).all()


def test_drop_connect_is_dropout_of_weights():
    w = drawn((60, 60))
    found = array(activations.drop_connect(ops.convert_to_tensor(w), 0.4, keras.random.SeedGenerator(0)))
    kept = found != 0
    np.testing.assert_allclose(found, w * kept / 0.6, rtol=1e-6)
    assert stats.binomtest(int(kept.sum()), w.size, 0.6).pvalue > 1e-3


def words(key, number):
    """What numbers are made of on JAX, in NumPy."""
    first, second = np.array(key, "uint32")[:, None]
    first = _draws._hashed(first ^ np.uint32(_draws._GOLDEN))
    second = _draws._hashed(first ^ second)
    return _draws._hashed(_draws._hashed(np.arange(number, dtype="uint32") ^ first) ^ second)


def rotated(word, by):
    return word << np.uint32(by) | word >> np.uint32(32 - by)


def test_numbers_are_hashed_as_scikit_learn_ends_its_hash():
    numbers = np.random.default_rng(0).integers(0, 2**32, 200, "uint32")
    body = rotated(numbers * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)  # MurmurHash3 of one word, seed 9
    body = rotated(body ^ np.uint32(9), 13) * np.uint32(5) + np.uint32(0xE6546B64) ^ np.uint32(4)
    expected = [murmurhash3_32(number.tobytes(), seed=9, positive=True) for number in numbers]
    np.testing.assert_array_equal(_draws._hashed(body), np.array(expected, "uint32"))


def test_uniform_numbers_are_uniform_and_those_of_the_hash():
    generator = keras.random.SeedGenerator(1)
    first, second = (array(_draws.uniform((400, 500), generator)) for _ in range(2))
    assert 0 <= min(first.min(), second.min()) < 1e-4 < 0.9999 < max(first.max(), second.max()) < 1
    for numbers in (first, second, (first + second) % 1, (first[:, 1:] - first[:, :-1]) % 1):
        assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3
    if keras.backend.backend() == "jax":
        np.testing.assert_array_equal(first, (words((1, 0), first.size) >> 8).reshape(first.shape) / 2**24)


@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.3, 0.5, 0.999, 1.0])
def test_drop_connect_keeps_what_it_should(rate):
    found = array(activations.drop_connect(ops.ones((400, 500)), rate, keras.random.SeedGenerator(1)))
    assert stats.binomtest(int((found != 0).sum()), found.size, 1 - rate).pvalue > 1e-3
    assert 0 < rate < 1 or (found == (rate == 0)).all()


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("seeds", [(0, 0), (0, 1), (7, 7 ^ 1 << 30)])
def test_masks_of_any_places_steps_and_seeds_are_independent(rate, seeds):
    """How often each pattern of three entries occurs, two of one mask and one between them of the same or another one."""
    generators = [keras.random.SeedGenerator(seed) for seed in dict.fromkeys(seeds)]
    many = range(8 // len(generators))
    masks = np.stack([array(_draws.uniform((2**14,), g)) >= rate for _ in many for g in generators])
    for offset in (1, 64, 4096):
        for pair in ((0, 0), (0, 1), (1, 2), (0, 7)):
            a, b = masks[pair[0]], masks[pair[1]]
            triple = 4 * a + 2 * np.roll(b, -offset) + np.roll(a, -2 * offset)
            shares = [rate ** (3 - k.bit_count()) * (1 - rate) ** k.bit_count() for k in range(8)]
            counts = np.bincount(triple, minlength=8)
            assert stats.chisquare(counts, np.array(shares) * len(triple)).pvalue > 1e-4


def test_seeds_whose_places_lie_in_one_block_draw_other_numbers():
    """Of 2**17 seeds, those whose first words differ in the last bits alone: places of one are places of the other."""
    seeds = np.arange(2**17, dtype="uint32")
    first = _draws._hashed(seeds ^ np.uint32(_draws._GOLDEN))
    order = np.argsort(first)
    apart = first[order][1:] ^ first[order][:-1]
    near = np.flatnonzero(apart < 2**10)
    assert len(near) > 3
    for i in near:
        a, b = (words((int(seeds[order[at]]), 5), 2**12) for at in (i, i + 1))
        b = b[np.arange(2**12) ^ int(apart[i])]
        assert (a == b).sum() <= 1
        assert stats.binomtest(int(((a ^ b) >> 31).sum()), len(a)).pvalue > 1e-4


def test_each_bit_of_place_and_key_turns_half_of_the_bits_of_a_draw():
    key, number = (12345, 3), 2**12
    before = words(key, number)

    def turned(after):
        return ((before ^ after)[:, None] >> np.arange(32, dtype="uint32") & 1).mean(0)

    changed = [turned(before[np.arange(number) ^ 1])]
    changed += [turned(words((key[0] ^ 1 << bit, key[1]), number)) for bit in range(32)]
    changed += [turned(words((key[0], key[1] ^ 1 << bit), number)) for bit in range(32)]
    # 65 times 32 shares, each with a standard error of 0.008: five of them
    assert np.abs(np.array(changed) - 0.5).max() < 0.04


# -- the batch ---------------------------------------------------------------------------------------------------------


def test_mixup_is_the_papers_formula_for_rows_and_of_losses():
    x, y, w = drawn((9, 4)), np.arange(9) % 3, np.arange(9, dtype="float32")
    mixed, pairs = batch.mixup(x, 0.4, keras.random.SeedGenerator(2))
    share, other = float(array(pairs.share)), array(pairs.other)
    assert 0 < share < 1
    assert sorted(other) == list(range(9))
    np.testing.assert_allclose(array(mixed), share * x + (1 - share) * x[other], atol=1e-6)
    p = ops.softmax(ops.convert_to_tensor(drawn((9, 3))))
    loss = keras.losses.SparseCategoricalCrossentropy()
    expected = share * loss(y, p, w) + (1 - share) * loss(y[other], p, w[other])
    np.testing.assert_allclose(array(pairs.mixed(loss)(y, p, w)), array(expected), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_of_mixup_are_drawn_from_beta(alpha):
    generator, x = keras.random.SeedGenerator(0), np.zeros((2, 1), "float32")
    shares = [float(array(batch.mixup(x, alpha, generator)[1].share)) for _ in range(300)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("technique", [t.function for t in batch.TECHNIQUES], ids=lambda f: f.__name__)
def test_a_batch_technique_that_is_off_changes_nothing(technique):
    x = {"table": drawn((8, 4)), "image": drawn((8, 5, 5, 2))}
    tensors = {name: ops.convert_to_tensor(rows) for name, rows in x.items()}
    found, pairs = technique(tensors, ops.convert_to_tensor(0.0), keras.random.SeedGenerator(0))
    for name, rows in x.items():
        np.testing.assert_array_equal(array(found[name]), rows)
    assert pairs is None or float(array(pairs.share)) == 1.0


@pytest.mark.parametrize("alpha", [1e-12, 1e-3, 1e3])
def test_extreme_alphas_are_finite(alpha):
    found, pairs = batch.mixup(drawn((4, 2)), ops.convert_to_tensor(alpha), keras.random.SeedGenerator(0))
    assert np.isfinite(array(found)).all()
    assert 0 <= float(array(pairs.share)) <= 1


@pytest.mark.parametrize("shape", [(6, 40), (6, 12, 3), (6, 9, 11, 2)])
def test_cutmix_takes_a_part_of_the_partner_and_as_much_of_its_target(shape):
    x = np.broadcast_to(np.arange(6, dtype="float32").reshape(6, *(1 for _ in shape[1:])), shape)
    areas = []
    for seed in range(40):
        found, pairs = batch.cutmix(x, 1.0, keras.random.SeedGenerator(seed))
        found, other = array(found), array(pairs.other)
        row = int(np.flatnonzero(other != np.arange(6))[0])
        cut = found[row] != row
        assert (found[row][cut] == other[row]).all()
        assert float(array(pairs.share)) == pytest.approx(1 - cut.mean(), abs=1e-6)
        if len(shape) == 3:
            cut = cut[:, 0]
            assert cut.sum() == 0 or np.ptp(np.flatnonzero(cut)) + 1 == cut.sum()
        if len(shape) == 4:
            rows, columns = cut[..., 0].any(1), cut[..., 0].any(0)
            np.testing.assert_array_equal(cut[..., 0], np.outer(rows, columns))
        areas.append(cut.mean())
    assert max(areas) > 0.4
    assert min(areas) < 0.2


def test_cutout_of_images_is_a_box_of_that_share_another_for_each_row():
    found = array(batch.cutout(np.ones((200, 16, 16, 2), "float32"), 0.25, keras.random.SeedGenerator(0))[0])
    holes = found[..., 0] == 0
    np.testing.assert_array_equal(holes, found[..., 1] == 0)
    heights, widths = holes.any(2).sum(1), holes.any(1).sum(1)
    np.testing.assert_array_equal(heights * widths, holes.sum((1, 2)))  # boxes
    assert heights.max() == widths.max() == 8  # half of a side, as DeVries and Taylor cut 16 of 32
    assert len({tuple(np.flatnonzero(h.ravel())) for h in holes}) > 50
    # the centre is uniform, and of a box at a border half is left: 0.75 of each side in the mean
    assert holes.mean() == pytest.approx((0.5 * 0.875) ** 2, abs=0.02)


def test_cutout_of_tables_and_input_noise_have_their_rates():
    x = np.ones((300, 20), "float32")
    cut = array(batch.cutout(x, 0.3, keras.random.SeedGenerator(0))[0])
    assert set(np.unique(cut)) == {0.0, 1.0}
    assert stats.binomtest(int((cut == 0).sum()), x.size, 0.3).pvalue > 1e-3
    noise = array(batch.input_noise(ops.convert_to_tensor(x), 0.5, keras.random.SeedGenerator(0))[0]) - x
    assert stats.kstest(noise.ravel() / 0.5, "norm").pvalue > 1e-3


@pytest.mark.parametrize(("rows", "columns"), [(600, (20,)), (601, (20,)), (601, (4, 5, 1))])
def test_swap_noise_takes_from_the_same_column_at_its_rate(rows, columns):
    x = np.arange(rows * 20, dtype="float32").reshape(rows, *columns)  # column j holds the numbers that are j modulo 20
    found = array(batch.swap_noise(ops.convert_to_tensor(x), 0.3, keras.random.SeedGenerator(0))[0])
    np.testing.assert_array_equal(found % 20, x % 20)
    found, x = found.reshape(rows, 20), x.reshape(rows, 20)
    swapped = found != x
    assert stats.binomtest(int(swapped.sum()), x.size, 0.3 * (rows - 1) / rows).pvalue > 1e-3
    donors = found[swapped] // 20
    assert stats.kstest(donors / rows, "uniform").pvalue > 1e-3
    assert not (swapped.all(1) | ~swapped.any(1)).all()  # entries are drawn one by one, not rows


@pytest.mark.parametrize(("function", "axis"), [(batch.time_mask, 1), (batch.frequency_mask, 2)])
@pytest.mark.parametrize("trailing", [(), (2,)])
def test_masks_are_the_stretches_of_specaugment(function, axis, trailing):
    size, share = {1: 20, 2: 12}[axis], 0.5
    x = np.ones((3000, 20, 12, *trailing), "float32")
    found = array(function(x, share, keras.random.SeedGenerator(0))[0])
    other = tuple(a for a in range(1, found.ndim) if a != axis)
    masked = (found == 0).all(other)
    np.testing.assert_array_equal(found == 0, np.expand_dims(masked, other) | np.zeros_like(found, bool))
    lengths = masked.sum(1)
    for row, length in zip(masked[:100], lengths, strict=False):
        assert length == 0 or np.ptp(np.flatnonzero(row)) + 1 == length
    # lengths uniform on 0 ... longest, and the start uniform among where such a stretch fits
    longest = int(share * size)
    assert stats.chisquare(np.bincount(lengths, minlength=longest + 1)).pvalue > 1e-3
    starts = masked[lengths == 3].argmax(1)
    assert stats.chisquare(np.bincount(starts, minlength=size - 2)).pvalue > 1e-3


@pytest.mark.parametrize("technique", [batch.mixup, batch.input_noise, batch.augment], ids=lambda f: f.__name__)
def test_whole_numbers_are_changed_as_floating_point_ones(technique):
    x = np.random.default_rng(0).integers(0, 255, (6, 5, 5, 1)).astype("uint8")
    found = array(technique(x, 0.3, keras.random.SeedGenerator(0))[0])
    expected = array(technique(x.astype("float32"), 0.3, keras.random.SeedGenerator(0))[0])
    np.testing.assert_allclose(found, expected, atol=1e-4)  # of numbers up to 255
    assert not (found == found.round()).all()


@pytest.mark.parametrize("function", [gradient.sam, gradient.asam], ids=lambda f: f.__name__)
def test_gradients_that_overflow_move_nothing(function):
    weights = [ops.convert_to_tensor(drawn((3, 2))), ops.convert_to_tensor(drawn(4))]
    there = function(
        weights, [ops.ones((3, 2)), ops.convert_to_tensor(np.array([1, np.inf, np.nan, 0], "float32"))], 0.5
    )
    for a, b in zip(there, weights, strict=True):
        np.testing.assert_array_equal(array(a), array(b))


def test_masks_leave_tables_alone_and_can_take_all():
    table = {"table": drawn((5, 4)), "sequence": np.ones((5, 4, 2), "float32")}
    found = batch.time_mask(table, 1.0, keras.random.SeedGenerator(0))[0]
    np.testing.assert_array_equal(array(found["table"]), table["table"])
    assert set(np.unique(array(found["sequence"]))) <= {0.0, 1.0}


@pytest.mark.parametrize("magnitude", [0.1, 0.5])
def test_augment_is_what_keras_layers_do_with_that_factor(magnitude):
    x = ops.convert_to_tensor(drawn((6, 9, 7, 3)))
    found = batch.augment(x, ops.convert_to_tensor(magnitude), keras.random.SeedGenerator(3))[0]
    generator, expected = keras.random.SeedGenerator(3), x
    for layer in (
        keras.layers.RandomRotation(magnitude / 4),
        keras.layers.RandomTranslation(magnitude, magnitude),
        keras.layers.RandomZoom(magnitude),
    ):
        expected = layer.transform_images(expected, layer.get_random_transformation(expected, seed=generator))
    np.testing.assert_allclose(array(found), array(expected), atol=1e-5)
    assert np.abs(array(found) - array(x)).max() > 0.1


def test_augment_moves_an_image_by_no_more_than_its_magnitude():
    x = np.zeros((200, 21, 21, 1), "float32")
    x[:, 9:12, 9:12] = 1
    found = array(batch.augment(x, 0.1, keras.random.SeedGenerator(0))[0])[..., 0]
    at = np.arange(21)
    mass = found.sum((1, 2))
    centre = np.stack([(found * at[:, None]).sum((1, 2)), (found * at).sum((1, 2))]) / mass
    assert np.abs(centre - 10).max() < 0.1 * 21 * 1.2  # the zoom moves what was shifted once more
    assert np.abs(centre - 10).max() > 0.05 * 21


# -- targets, gradients and what follows the step ----------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 5])
def test_label_smoothing_is_szegedys_formula(classes):
    y = np.eye(classes, dtype="float32")
    found = array(targets.label_smoothing(ops.convert_to_tensor(y), 0.1, classes))
    np.testing.assert_allclose(found, 0.9 * y + 0.1 / classes, atol=1e-7)
    np.testing.assert_array_equal(array(targets.label_smoothing(ops.convert_to_tensor(y), 0.0, classes)), y)


def test_sam_goes_the_distance_along_the_gradient():
    weights, gradients = [drawn((3, 2)), drawn(4)], [drawn((3, 2), 1), drawn(4, 2)]
    tensors = [[ops.convert_to_tensor(a) for a in part] for part in (weights, gradients)]
    found = [array(w) for w in gradient.sam(*tensors, 0.3)]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    for w, start, g in zip(found, weights, gradients, strict=True):
        np.testing.assert_allclose(w, start + 0.3 * g / norm, atol=1e-6)
    still = gradient.sam(tensors[0], [0 * g for g in tensors[1]], 0.3)
    for w, start in zip(still, weights, strict=True):
        np.testing.assert_array_equal(array(w), start)


@pytest.mark.parametrize("bound", [0.5, 100.0])
def test_clip_norm_is_pascanus_formula(bound):
    gradients = [drawn((3, 2)), drawn(4, 1)]
    tensors = [ops.convert_to_tensor(g) for g in gradients]
    norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients))
    for found, g in zip(gradient.clip_norm(tensors, 1 / bound, tensors, []), gradients, strict=True):
        np.testing.assert_allclose(array(found), g * min(1, bound / norm), rtol=1e-6)
    for found, g in zip(gradient.clip_norm(tensors, 0.0, tensors, []), gradients, strict=True):
        np.testing.assert_array_equal(array(found), g)


@pytest.mark.parametrize(("shape", "axis"), [((5, 3), (0,)), ((3, 3, 2, 4), (0, 1, 2))])
def test_max_norm_is_that_of_keras(shape, axis):
    w = ops.convert_to_tensor(drawn(shape))
    expected = array(keras.constraints.MaxNorm(1.2, axis=list(axis))(w))
    np.testing.assert_allclose(array(update.max_norm(w, 1 / 1.2, axis)), expected, atol=1e-5)
    np.testing.assert_array_equal(array(update.max_norm(w, 0.0, axis)), array(w))


@pytest.mark.parametrize(("shape", "axis"), [((5, 3), (0,)), ((3, 3, 2, 4), (0, 1, 2)), ((4,), (0,))])
def test_unit_norm_is_that_of_keras(shape, axis):
    w = ops.convert_to_tensor(drawn(shape))
    whole = array(keras.constraints.UnitNorm(axis=list(axis))(w))
    np.testing.assert_allclose(array(update.unit_norm(w, 1.0, axis)), whole, atol=1e-7)
    part = array(keras.constraints.MinMaxNorm(1.0, 1.0, rate=0.3, axis=list(axis))(w))
    np.testing.assert_allclose(array(update.unit_norm(w, 0.3, axis)), part, atol=1e-6)
    np.testing.assert_array_equal(array(update.unit_norm(w, 0.0, axis)), array(w))


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_unit_norm_leaves_zeros_zeros(strength):
    w = ops.convert_to_tensor(np.stack([np.zeros(4), np.full(4, 1e-20), np.ones(4)], 1).astype("float32"))
    found = array(update.unit_norm(w, strength, (0,)))
    np.testing.assert_allclose(found[:, :2], 0, atol=1e-12)
    np.testing.assert_allclose(found[:, 2], (1 - strength) + strength / 2, rtol=1e-6)


@pytest.mark.parametrize("begin", [0, 7])
def test_swa_keeps_the_mean_of_the_last_share_of_steps(begin):
    passed = drawn((20, 3))
    average = np.zeros(3)
    for n, weights in enumerate(passed):
        kept = float(array(update.swa(0.25, float(begin + n), float(begin), 20.0)))
        average = kept * average + (1 - kept) * weights
    np.testing.assert_allclose(average, passed[15:].mean(0), atol=1e-6)


def test_ema_keeps_its_momentum_but_for_the_first_step():
    kept = [float(array(update.ema(0.9, float(n), 3.0, 0.0))) for n in (3, 4, 5)]
    assert kept == pytest.approx([0, 0.9, 0.9])
