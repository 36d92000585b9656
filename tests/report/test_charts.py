"""What the charts of the report draw is what the study found: their data and what stands on which axis."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from regularity.report import _charts, _page, _trials


def data(chart, needle):
    """The rows of a chart that have a field, as a mapping of columns."""
    sets = [rows for rows in chart["datasets"].values() if rows and needle in rows[0]]
    (rows,) = sets
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def fields(chart):
    """Which field stands on which channel, in all layers."""
    found = {}
    for layer in chart.get("layer", [chart]):
        for channel, value in layer.get("encoding", {}).items():
            if isinstance(value, dict) and "field" in value:
                found.setdefault(channel, set()).add(value["field"])
    return found


def test_comparison(study):
    chart = _charts.comparison(study.comparison, "accuracy")
    rows, table = data(chart, "low"), study.comparison.drop(index="chosen")
    for column in ("difference", "low", "high"):
        np.testing.assert_allclose(rows[column], table[column])
    assert fields(chart)["x"] == {"low", "difference"}


def test_strengths(study):
    evidence, shown = study._evidence.strengths, _trials.rows(study)
    mine = evidence[evidence["technique"] == "l2"].merge(shown[["trial", "role"]], on="trial").assign(recipe="")
    chart = _charts.strengths(mine, "l2", "accuracy", "log", (-1.0, 1.0))
    rows = data(chart, "difference")
    np.testing.assert_allclose(rows["strength"], study.table["l2"].loc[rows["trial"]])
    np.testing.assert_allclose(rows["difference"], study.table["difference"].loc[rows["trial"]])
    np.testing.assert_allclose(rows["high"] - rows["low"], 2 * study.table["error"].loc[rows["trial"]])
    assert fields(chart)["x"] == {"strength"}
    assert fields(chart)["y"] == {"low", "difference"}


def test_profile(study):
    key, mine = next(iter(study.profile().groupby("technique")))
    chart = _charts.profile(mine, key, "accuracy", "linear")
    rows, on = data(chart, "low"), mine[mine["strength"].notna()]
    np.testing.assert_allclose(rows["at"], on["strength"])
    np.testing.assert_allclose(rows["high"] - rows["low"], 2 * on["error"])
    assert rows["mark"][on["chosen"].to_numpy()] == ["chosen"]
    assert fields(chart)["y"] == {"score", "low", "train_score"}
    low, high = _trials.reach(mine)
    assert low < mine["score"].iloc[0] < high


def test_what_ruins_the_network_leaves_room_for_all_else(study):
    mine = next(iter(study.profile().groupby("technique")))[1].reset_index(drop=True)
    high = (mine["score"] + mine["error"]).max()
    ruined = mine.iloc[[-1]].assign(score=-17.0, error=19.0, train_score=-20.0)
    for more in (ruined, ruined.assign(score=np.nan, error=np.nan, train_score=np.nan)):
        low, top = _trials.reach(pd.concat([mine, more]))
        assert high < top < 1.3  # an accuracy, and a margin
        assert low > -1


def test_curves(study):
    found = study._evidence.curves
    rows = data(_charts.curves(found, "accuracy"), "rows")
    for column, name in (("held_out", "held out"), ("train", "trained on")):
        np.testing.assert_allclose(rows["score"][rows["rows"] == name], found[column])


def test_ablation(study):
    table = study.ablation()
    rows = data(_charts.ablation(table, "accuracy"), "low")
    table = table.drop(index="all")
    np.testing.assert_allclose(rows["low"], table["difference"] - 2 * table["error"])
    np.testing.assert_allclose(rows["high"], table["difference"] + 2 * table["error"])


def test_calibration(study):
    found = study._evidence.calibration
    chart = _charts.calibration(found.bins, False)
    rows = data(chart, "observed")
    np.testing.assert_allclose(rows["observed"], found.bins["observed"])
    np.testing.assert_allclose(rows["predicted"], found.bins["predicted"])
    assert "observed" in fields(chart)["y"]
    assert fields(chart)["x"] == {"predicted"}


def test_histogram(study):
    kernel = study._evidence.weights.to_dict("records")[0]
    rows = data(_charts.histogram(kernel), "weights")
    np.testing.assert_allclose(rows["weights"], kernel["counts"])
    assert (np.diff(rows["from"]) > 0).all()
    assert (rows["to"] > rows["from"]).all()


def test_the_best_are_those_of_which_most_is_expected(study):
    shown, table = _trials.rows(study), study.table
    tenth = shown.loc[shown["role"] == "best tenth", "trial"]
    best = table["expected"].sort_values(ascending=False).index[: max(1, len(table) // 10)]
    assert set(tenth) <= set(best)
    rest = shown["trial"][2:] if shown["trial"][0] != shown["trial"][1] else shown["trial"][1:]
    assert table["expected"].loc[rest].dropna().is_monotonic_decreasing
    assert shown["trial"][0] == study._found.choice.answer


def test_lines_go_from_off_at_the_bottom_to_the_strongest(study):
    shown = _trials.rows(study)
    places = _trials.places(study, shown).set_index(["axis", "trial"])["at"]
    strengths = study.table["l2"]
    assert (places["l2"].loc[strengths.index[strengths.isna()]] == 0).all()
    on = strengths.dropna().sort_values()
    assert places["l2"].loc[on.index].is_monotonic_increasing
    assert places["l2"].loc[on.index].min() >= 0.1
    scores = study.table["score"].sort_values()
    assert places[study.score_name].loc[scores.index].is_monotonic_increasing
    assert places[study.score_name].max() == pytest.approx(1)


def test_long_curves_of_many_variants_are_drawn():
    epochs = np.arange(1, 1301)
    rows = pd.concat(
        pd.DataFrame({"recipe": name, "epoch": epochs, "stopped": epochs == 9, "held_out": 0.5, "train": 0.6})
        for name in ("all", "none", "as given")
    )
    chart = _charts.curves(rows, "accuracy")
    assert sum(map(len, chart["datasets"].values())) == 2 * len(rows)


def test_a_profile_without_any_score_has_bounds_all_the_same():
    rows = pd.DataFrame({"strength": [np.nan, 0.1, 0.2], "score": np.nan, "error": np.nan, "train_score": np.nan})
    assert _trials.reach(rows) == (0.0, 1.0)


def test_rows_that_are_judged_several_times_count_once(study):
    design = dataclasses.replace(study._settled.design, folds=study._settled.design.folds * 2)
    repeated = dataclasses.replace(study, _settled=study._settled._replace(design=design))
    assert _page._facts(repeated)["Judged on"].startswith("90 rows in 8 folds")
