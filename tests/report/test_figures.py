"""The picture of a path: drawn from what was found, with nothing left behind in matplotlib."""

import base64
import html
import io
import re

import keras
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import regularity as rg
from regularity.report import _page
from regularity.study import Path, Point

PNG = b"\x89PNG\r\n\x1a\n"
LOG = [0.0, *np.geomspace(1e-4, 1.0, 9)]
LINEAR = [0.0, 0.2, 0.4, 0.6, 0.8]


def found(strengths, technique="l2", given=None, best=None, answer=None, score_name="r2", as_good=(), diverged=()):
    """A path with a hump-shaped score; rows of the table by number, that of the model as given first where there is one."""
    strengths = [*([] if given is None else [given]), *strengths]
    names = [*([] if given is None else ["as given"]), "off"]
    names += [""] * (len(strengths) - len(names))
    score = 0.5 - 0.01 * (np.arange(len(strengths)) - len(strengths) // 2) ** 2.0
    score[list(diverged)] = np.nan
    best = int(np.nanargmax(score)) if best is None else best
    answer = best if answer is None else answer
    good = np.isin(np.arange(len(strengths)), [best, answer, *as_good])
    table = pd.DataFrame(
        {
            "name": names,
            "strength": strengths,
            "score": score,
            "error": 0.02,
            "difference": score - score[best],
            "difference_error": 0.01,
            "as_good": good,
            "train_score": score + 0.1,
            "gap": 0.1,
            "norm": np.linspace(5, 1, len(strengths)),
            "zeros": 0.0,
            "epochs": 7,
            "diverged": np.isnan(score).astype(int),
        }
    )
    points = [
        Point(row["name"], row["strength"], row["score"], row["error"], 7, rg.Recipe({"epochs": 7}))
        for _, row in table.iterrows()
    ]
    off = points[names.index("off")]
    return Path(technique, score_name, table, off, points[best], points[answer], None, None, None, None, None, 0, {})


CASES = {
    "log": found(LOG),
    "linear": found(LINEAR, "dropout"),
    "best and answer apart": found(LOG, best=5, answer=7),
    "off is the answer": found(LOG, answer=0),
    "as given": found(LOG, given=0.01, best=5, answer=7),
    "as given is the answer": found(LOG, given=0.01, answer=0),
    "as given has several strengths": found(LINEAR, "dropout", given=float("nan"), answer=0),
    "one strength": found([0.0, 0.5]),
    "two strengths": found([0.0, 1e-4, 1e-1]),
    "narrow": found([0.0, 0.011, 0.012, 0.013]),
    "diverged": found(LOG, diverged=[8, 9]),
    "flat": found(LINEAR, as_good=range(5)),
}


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("case", CASES)
def test_picture_is_drawn_and_both_choices_are_marked(case):
    path = CASES[case]
    figure = path.plot()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pixels = mpl.image.imread(io.BytesIO(buffer.getvalue()))
    assert isinstance(figure, Figure)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20  # a picture, not a blank sheet
    legend = texts(figure.axes[0])
    for word, point in (("best mean", path.best), ("answer", path.one_se)):
        (line,) = [text for text in legend if word in text]
        where = "as given" if point.name == "as given" else "off" if point.strength == 0 else f"{point.strength:.3g}"
        assert where in line
        assert f"{point.score:.4g}" in line


def marker(figure, label):
    (line,) = [line for line in figure.axes[0].get_lines() if str(line.get_label()).startswith(label)]
    return line.get_xdata()[0], line.get_ydata()[0]


@pytest.mark.parametrize("strengths", [LOG, LINEAR], ids=["log", "linear"])
def test_marks_stand_where_the_choices_are(strengths):
    path = found(strengths, best=2, answer=4)
    figure = path.plot()
    for label, point in (("best mean", path.best), ("answer", path.one_se)):
        x, y = marker(figure, label)
        assert y == point.score
        assert x == pytest.approx(np.log10(point.strength) if strengths is LOG else point.strength)


def test_off_stands_left_of_all_strengths_on_a_log_axis():
    figure = found(LOG, answer=0).plot()
    assert marker(figure, "answer")[0] < np.log10(LOG[1])
    ticks = figure.axes[1].get_xticklabels()
    assert ticks[0].get_text() == "off"
    assert [tick.get_text() for tick in ticks[1:]] == [f"$10^{{{power}}}$" for power in range(-4, 1)]


@pytest.mark.parametrize(
    ("score", "label"),
    [
        ("r2", "R²"),
        ("accuracy", "accuracy"),
        ("neg_mean_squared_error", "mean squared error, negated"),
        ("loss", "loss, negated"),
    ],
)
def test_axes_say_what_they_show(score, label):
    scores, norms = found(LOG, "l2@hidden", score_name=score).plot().axes
    assert scores.get_ylabel() == label
    assert norms.get_xlabel() == "strength of l2@hidden"
    assert "norm" in norms.get_ylabel()


@pytest.mark.parametrize(
    ("case", "title"),
    [
        ("log", "l2 helps at 0.01"),
        ("off is the answer", "l2: no strength is better than the model without it"),
        ("as given is the answer", "l2: no strength is better than the model as given"),
        ("flat", "l2 makes no difference here"),
    ],
)
def test_title_is_the_answer(case, title):
    assert CASES[case].plot().axes[0].get_title(loc="left") == title


def test_axes_of_the_user_are_drawn_on():
    figure = Figure()
    scores, other, norms = figure.subplots(3)
    assert CASES["log"].plot(ax=(scores, norms)) is figure
    assert scores.has_data()
    assert norms.has_data()
    assert not other.has_data()


def test_axes_of_the_user_that_share_nothing_both_say_the_strengths():
    apart, shared = Figure().subplots(2), Figure().subplots(2, sharex=True)
    for axes in (apart, shared):
        CASES["log"].plot(ax=axes)
    labels = [[tick.get_text() for tick in axes.get_xticklabels()] for axes in apart]
    assert labels[0] == labels[1]
    assert labels[0][0] == "off"
    assert [tick.get_text() for tick in shared[1].get_xticklabels()] == labels[1]


def test_figures_of_one_technique_are_apart():
    first, second = CASES["log"].plot(), CASES["best and answer apart"].plot()
    assert first is not second
    assert texts(first.axes[0]) != texts(second.axes[0])


def test_nothing_is_left_in_pyplot_and_no_setting_changes():
    import matplotlib.pyplot as plt

    mine = plt.figure()
    try:
        before = dict(mpl.rcParams)
        for case in CASES.values():
            case.plot()
        assert plt.get_fignums() == [mine.number]
        assert plt.gcf() is mine
        assert dict(mpl.rcParams) == before
    finally:
        plt.close(mine)


def test_notebook_shows_the_figure():
    assert CASES["log"].plot()._repr_png_().startswith(PNG)


# -- of a study --------------------------------------------------------------------------------------------------------

PLOTS = {
    "comparison": lambda study: 1,
    "strengths": lambda study: study._evidence.strengths["technique"].nunique(),
    "profile": lambda study: study.profile()["technique"].nunique(),
    "curves": lambda study: 1,
    "ablation": lambda study: 1,
    "trials": lambda study: 1,
    "calibration": lambda study: 1,
    "weights": lambda study: len(study._evidence.weights),
}


@pytest.mark.parametrize("name", PLOTS)
def test_each_plot_of_a_study_is_drawn_alone_or_on_axes_of_the_user(study, name):
    plot = getattr(study, f"plot_{name}")
    alone = plot()
    assert alone._repr_png_().startswith(PNG)
    mine = Figure()
    axes = mine.subplots(1, PLOTS[name](study))
    assert plot(ax=axes) is mine
    assert all(each.has_data() for each in np.ravel(axes))


def test_plots_with_as_many_parts_as_axes_say_so(study):
    with pytest.raises(ValueError, match=r"2 axes, one for each kernel.*Received: 3"):
        study.plot_weights(ax=Figure().subplots(1, 3))


def test_plot_of_differences_stands_where_the_table_does(study):
    (points, *_) = study.plot_comparison().axes[0].containers[0]
    table = study.comparison.drop(index="chosen")
    assert points.get_xdata().tolist() == table["difference"].tolist()
    assert [text.get_text() for text in study.plot_comparison().axes[0].get_yticklabels()] == table.index.tolist()


def test_comparison_says_what_it_is_that_helps(study, monkeypatch):
    monkeypatch.setattr(rg.Study, "verdict", "helps")
    monkeypatch.setattr(rg.Study, "_subject", "Another learning rate")
    assert study.plot_comparison().axes[0].get_title(loc="left") == "Another learning rate helps"


def test_trials_without_a_technique_that_was_searched_have_no_strengths():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 4)).astype("float32"), random.normal(size=40).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    study = rg.search(model, x, y, ["dropout"], trials=2, folds=4, epochs=1, storage="sqlite://", verbose=0)
    with pytest.raises(ValueError, match=r"technique that was searched.*trials"):
        study.plot_strengths()
    assert "No trial has a technique that was searched." in _page.page(study)


# -- in a notebook -----------------------------------------------------------------------------------------------------


def test_notebook_shows_a_study_as_its_answer_and_table(study):
    shown = study._repr_html_()
    assert f"<p>{html.escape(str(study))}</p>" in shown
    for name, row in study.comparison.iterrows():
        assert f"<th>{name}</th>" in shown
        assert f"<td>{row['score']:.4g}</td>" in shown


def test_notebook_shows_a_path_as_its_answer_and_picture():
    shown = found(LOG, "l2@<b>")._repr_html_()
    assert "l2@&lt;b&gt; helps" in shown
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    assert base64.b64decode(picture).startswith(PNG)


def test_notebook_shows_a_recipe_as_a_table():
    shown = rg.Recipe({"l2@<b>": 0.001, "dropout": {"strength": 0.3, "schedule": "cosine"}, "epochs": 7})._repr_html_()
    assert shown.count("<tr>") == 3
    assert "<th>l2@&lt;b&gt;</th><td>0.001</td>" in shown
    assert "cosine" in shown
