"""The demo shows what it promises, on rows that nothing has seen."""

import pytest

from regularity import demo


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, *demo.run(folder, verbose=0)


def test_rows_to_test_on_are_not_among_those_to_train_on():
    x, y, x_test, y_test = demo.data()
    assert (x.shape, y.shape, x_test.shape, y_test.shape) == ((250, 65), (250,), (192, 65), (192,))
    assert not {row.tobytes() for row in x} & {row.tobytes() for row in x_test}


def test_choices_beat_the_plain_network_on_held_out_rows_by_more_than_twice_the_error(shown):
    rows = {(row["technique"], row["candidate"]): row for row in shown[1]}
    assert list(rows) == [(t, c) for t in ("l2", "dropout") for c in ("plain", "best", "one-SE")]

    def beats_plain(technique, candidate):
        plain, chosen = rows[technique, "plain"], rows[technique, candidate]
        error = (plain["r2_test_error"] ** 2 + chosen["r2_test_error"] ** 2) ** 0.5
        return chosen["r2_test"] - plain["r2_test"] > 2 * error

    assert any(all(beats_plain(technique, c) for c in ("best", "one-SE")) for technique in ("l2", "dropout"))
    assert all(row["strength"] == 0 for (_, candidate), row in rows.items() if candidate == "plain")


def test_pictures_and_answers_are_there(shown):
    folder, _, pictures, answers = shown
    assert [p.name for p in pictures] == ["regularity-demo-l2.png", "regularity-demo-dropout.png"]
    assert sorted(folder.iterdir()) == sorted(pictures)
    assert all(p.stat().st_size > 10_000 for p in pictures)
    assert [answer.partition(" ")[0] for answer in answers] == ["l2", "dropout"]
