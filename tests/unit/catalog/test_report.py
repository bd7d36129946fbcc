"""The page of recorded searches: from the command line and from Python, and what is refused."""

import json
from pathlib import Path

import pytest
from support.journals import METRIC
from support.page import Page, config_of, open_search, write_trial
from support.pipeline import Capture, refused

import genpipe
from pipelines.cli.main import main
from pipelines.config.serialization import dump_config
from pipelines.store.journal import Outcome
from pipelines.store.layout import SearchFolder, Store
from pipelines.store.lease import holding


def make_store(root: Path) -> list[SearchFolder]:
    """A store with a search that has ended, and one that runs."""
    store = Store.at(root)
    ended, running = (open_search(store.search(name).path) for name in ("vae-1", "vae-2"))
    for index in range(12):
        config = {"optim.lr": 0.001 * (index + 1) / 2, "model.latent_dim": [4, 8][index % 2]}
        write_trial(ended, f"t{index}", config, [-30.0, -20.0 - index])
    ended.journal.close(Outcome("completed", 0))
    write_trial(running, "t0", {"optim.lr": 0.0098}, [-9.0], "completed")
    write_trial(running, "t1", {"optim.lr": 0.002}, [-8.0], None)
    return [ended, running]


def files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_page_is_written_and_nothing_else(tmp_path: Path, capsys: Capture) -> None:
    ended, _ = make_store(tmp_path)
    before = files(tmp_path)
    assert main(["report", "vae-1", "--store", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"page  {ended.report}" in out
    assert f"vae-1: completed, 12 trials, 0.4 device-hours, best {METRIC} -20" in out
    assert main(["report", "vae-1", "--store", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == str(ended.report)
    (search,) = result["searches"]
    assert search["best_trial"] == "t0" and search["value"] == -20.0
    assert search["config"]["optim.lr"] == 0.0005 and search["epochs"] == 24
    assert search["importance_trials"] == 12 and next(iter(search["importance"])) == "optim.lr"
    page = Page(ended.report.read_text())
    assert len(page.tables["Trials"]) == 1 + 12
    after = files(tmp_path)
    assert after.pop(ended.report) and after == before


def test_a_search_that_runs(tmp_path: Path, capsys: Capture) -> None:
    _, running = make_store(tmp_path)
    assert main(["report", "vae-2", "--store", str(tmp_path)]) == 0
    assert "vae-2: interrupted, 2 trials" in capsys.readouterr().out
    with holding(running, "resume"):
        assert main(["report", "vae-2", "--store", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert "vae-2: running, 2 trials" in out
        assert "optim.lr = 0.0098 lies at the upper edge" in out
        assert main(["report", "vae-2", "--store", str(tmp_path), "--json"]) == 0
        (search,) = json.loads(capsys.readouterr().out)["searches"]
    assert search["outcome"] is None and search["value"] == -9.0  # t1 has not ended
    (edge,) = search["edges"]
    assert (edge["name"], edge["edge"]) == ("optim.lr", "upper")
    assert not running.journal.outcome()


def test_several_searches_in_a_file_of_one_s_own(tmp_path: Path) -> None:
    make_store(tmp_path / "store")
    output = tmp_path / "new" / "both.html"
    result = genpipe.report("vae-1", "vae-2", store=tmp_path / "store", output=output)
    assert result.path == str(output) and json.loads(result.to_json())["path"] == str(output)
    page = Page(output.read_text())
    assert [row[0] for row in page.tables["Results"][1:]] == ["vae-1", "vae-2"]
    default = genpipe.report("vae-2", "vae-1", store=tmp_path / "store")
    assert default.path == str(tmp_path / "store" / "report.html")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "searches = '': expected one search or more of"),
        (["nope"], "searches = 'nope': expected a search of"),
        (["vae-1", "nope"], "vae-1, vae-2"),
        (["vae-1", "vae-1"], "searches = 'vae-1': expected each search once"),
        (["../vae-1"], "search_id = '../vae-1': expected a name"),
        (["vae-1", "--output", "."], "output = '.': expected the path of a file"),
        (["vae-1", "--output", "FILE/page.html"], "expected a file to write"),
    ],
)
def test_bad_input_is_refused(
    args: list[str], message: str, tmp_path: Path, capsys: Capture
) -> None:
    make_store(tmp_path / "s")
    (tmp_path / "file").touch()
    args = [arg.replace("FILE", str(tmp_path / "file")) for arg in args]
    text = refused(["report", *args, "--store", str(tmp_path / "s")], capsys)
    assert message in text and "error" in text


def test_a_damaged_config_or_journal_is_named(tmp_path: Path, capsys: Capture) -> None:
    ended, running = make_store(tmp_path)
    (ended.journal.folder / "identity.json").write_text("{")
    text = refused(["report", "vae-1", "--store", str(tmp_path)], capsys)
    assert "identity.json" in text and "damaged" in text
    running.config.write_text("{")
    assert "config.json" in refused(["report", "vae-2", "--store", str(tmp_path)], capsys)
    empty = Store.at(tmp_path).search("vae-3")
    empty.files.write(empty.config, dump_config(config_of()))
    text = refused(["report", "vae-3", "--store", str(tmp_path)], capsys)
    assert "expected a search that has begun to record" in text
