"""Where studies are kept: files of any name, several studies in one, and one message for whatever is none."""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import keras
import numpy as np
import optuna
import pytest

from regularity.recipe import Recipe
from regularity.study._rule import Trial
from regularity.study._store import Store, asked_of, names_in, shown, study_file


def trial(number=0):
    return Trial(number, "", Recipe({"l2": 1e-3}), {}, np.zeros((5, 1, 1, 1), "float32"), 1)


@pytest.mark.parametrize("name", ["mystudy", "net.v2", "a?b.db", "100%25.db", "a#b.db", "two words.db", "{x}&=ü.db"])
def test_a_file_may_have_any_name(tmp_path, name):
    store = Store(tmp_path / name, "one")
    store.add(trial(), 0.5)
    store.note("asked", {"trials": 3})
    store.keep_weights("0-1-0", [np.arange(3)])
    again = Store(str(tmp_path / name), "one")
    assert list(again.trials()) == [0]
    np.testing.assert_array_equal(again.weights("0-1-0"), [np.arange(3)])
    assert sorted(os.listdir(tmp_path)) == [name, f"{name}.weights"]
    assert names_in(tmp_path / name) == ["one"]
    assert asked_of(tmp_path / name, "one") == {"trials": 3}


def test_weights_of_half_the_bits_come_back(tmp_path):
    half = np.arange(5).astype(keras.dtype_policies.get("bfloat16").variable_dtype)
    store = Store(tmp_path / "one.db", "one")
    store.keep_weights("0-1-0", [half, np.arange(3, dtype="uint32"), np.array([True])])
    found = store.weights("0-1-0")
    assert [a.dtype.name for a in found] == ["float32", "uint32", "bool"]
    np.testing.assert_array_equal(found[0], half.astype("float32"))


def test_studies_in_one_file_do_not_share_weights(tmp_path):
    one, other = (Store(tmp_path / "both.db", name) for name in ("one", "other"))
    one.keep_weights("0-1-0", [np.zeros(2)])
    assert other.weights("0-1-0") is None
    other.keep_weights("0-1-0", [np.ones(2)])
    np.testing.assert_array_equal(Store(tmp_path / "both.db", "one").weights("0-1-0"), [np.zeros(2)])


def test_one_searches_at_a_time(tmp_path):
    one, same, other = (Store(tmp_path / "kept.db", name) for name in ("a", "a", "b"))
    with one.held():
        with other.held():
            pass
        with pytest.raises(ValueError, match=r"nobody else at work on the study 'a' in .*kept\.db"), same.held():
            pass
    with same.held():
        pass


def test_a_study_begun_anew_does_not_take_the_weights_of_one_that_was_removed(tmp_path):
    Store(tmp_path / "one.db", "one").keep_weights("0-1-0", [np.zeros(2)])
    (tmp_path / "one.db").unlink()
    assert Store(tmp_path / "one.db", "one").weights("0-1-0") is None


def test_a_url_of_a_file_is_that_file(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/one.db", "one")
    store.keep_weights("0-1-0", [np.zeros(2)])
    assert store.where == tmp_path / "one.db"
    assert Store(tmp_path / "one.db", "one").weights("0-1-0") is not None


@pytest.mark.parametrize("storage", ["sqlite://", "sqlite:///:memory:", optuna.storages.InMemoryStorage()])
def test_nothing_is_written_for_a_study_in_memory(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store(storage, "one")
    assert store.in_memory
    assert not Store("one.db", "one").in_memory
    Path("one.db").unlink()
    assert store.study.user_attrs
    assert not store.trials()
    store.keep_weights("0-1-0", [np.zeros(2)])
    assert store.weights("0-1-0") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("storage", ["sqlite://", "one.db"])
def test_what_is_noted_is_what_json_makes_of_it(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, sizes = Store(storage, "one"), {"a": (1, 2)}
    store.note("sizes", sizes)
    sizes["a"] = ()
    assert store.noted("sizes") == store.study.user_attrs["sizes"] == {"a": [1, 2]}
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.note("set", {1, 2})


def test_a_trial_of_before_0_1_is_read():
    new, old = Store("sqlite://", "one"), Store("sqlite://", "one")
    new.add(trial(), 0.5)
    (theirs,) = new.study.get_trials()
    theirs.user_attrs |= theirs.user_attrs.pop("kept")  # as it was written then
    old.study.add_trial(theirs)
    (expected,), (found,) = new.trials().values(), old.trials().values()
    np.testing.assert_array_equal(found.curves, expected.curves)
    assert (found.number, found.recipe, found.point) == (expected.number, expected.recipe, expected.point)


def test_a_study_is_found_by_its_name_then_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("regularity").mkdir()
    for file in ("regularity/net.v2.db", "regularity/other", "elsewhere.db"):
        Path(file).touch()
    assert study_file("net.v2") == Path("regularity/net.v2.db")
    assert study_file("regularity/net.v2.db") == Path("regularity/net.v2.db")
    assert study_file("elsewhere.db") == Path("elsewhere.db")


def test_to_look_for_a_study_writes_nothing(tmp_path):
    for storage in (tmp_path / "none.db", f"sqlite:///{tmp_path}/none.db"):
        assert names_in(storage) == []
    assert not list(tmp_path.iterdir())
    file = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("create table others (x)")
        database.commit()
    before = file.read_bytes()
    with pytest.raises(ValueError, match="no such table"):
        names_in(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("storage", "reason"),
    [
        ("text.txt", "file is not a database"),
        ("folder", "it is a folder"),
        ("text.txt/study.db", "File exists|Not a directory"),
        ("postgresql://someone:secret@127.0.0.1:1/studies", "[Cc]onnection refused|No module named"),
        ("postgresql+nodriver://someone:secret@host/studies", "Can't load plugin"),
        ("mssql+pymssql://someone:secret@host/studies", "No module named 'pymssql'"),
        ("magic://studies", "Can't load plugin.*magic"),
        ("://", "[Cc]ould not parse"),
        (3, "'int' object has no attribute"),
    ],
)
def test_what_is_no_storage_is_refused_in_one_line(storage, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("this is no database " * 100)
    Path("folder").mkdir()
    with pytest.raises(
        ValueError, match=rf"argument `storage`\. Expected a file.*Received: .* \(.*({reason})"
    ) as error:
        Store(storage, "one")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
    assert sorted(os.listdir()) == ["folder", "text.txt"]
    assert Path("text.txt").read_text().startswith("this is no database")


def test_a_password_is_not_shown():
    assert shown("postgresql://me:a@b:c/d@host/studies?x=1") == "postgresql://me:***@host/studies?x=1"
    assert shown("postgresql://me@host/studies") == "postgresql://me@host/studies"
    assert shown(Path("a:b@c.db")) == "a:b@c.db"
    for key in ("password", "passwd", "sslpassword"):
        assert shown(f"mysql://host/studies?user=me&{key}=a@b:c&x=1") == f"mysql://host/studies?user=me&{key}=***&x=1"
    assert shown("mysql://me:secret@host/studies?password=a@b") == "mysql://me:***@host/studies?password=***"


@pytest.fixture
def folder():
    """A folder of a user that no permission is given beyond what its files say; root would be let in anywhere."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # which anyone may pass through
    nobody = 65534
    if os.geteuid() == 0:
        Store(folder / "first.db", "first")  # imports all that one needs, from where only root may be let in
        (folder / "first.db").unlink()
        os.chown(folder, nobody, nobody)
        os.seteuid(nobody)
        yield folder
        os.seteuid(0)
    else:
        yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_a_folder_that_can_only_be_read_is_refused(folder):
    folder.chmod(0o500)
    with pytest.raises(ValueError, match=r"file that can be written.*unable to open database file"):
        Store(folder / "one.db", "one")
    with pytest.raises(ValueError, match=r"file that can be written.*Permission denied"):
        Store(folder / "more" / "one.db", "one")


@pytest.mark.parametrize("name", ["one", "another"])
def test_a_file_that_can_only_be_read_is_refused(folder, name):
    Store(folder / "one.db", "one").add(trial(), 0.5)
    (folder / "one.db").chmod(0o400)
    with pytest.raises(ValueError, match=r"file that can be written.*readonly database"):
        Store(folder / "one.db", name)
    assert names_in(folder / "one.db") == ["one"]


def test_a_file_in_a_folder_that_can_only_be_read_is_refused(folder):
    Store(folder / "one.db", "one").add(trial(), 0.5)
    folder.chmod(0o500)
    with pytest.raises(ValueError, match=r"file that can be written.*(readonly database|unable to open database file)"):
        Store(folder / "one.db", "one")
