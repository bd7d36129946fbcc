"""Two different searches that start at once in one new store."""

from pathlib import Path

from support.pipeline import check_recorded, last_json, start


def test_two_searches_at_once_in_a_new_store(tmp_path: Path) -> None:
    """Both make MLflow's tables, train the classifier of the feature space, and register a
    model."""
    store = tmp_path / "runs"
    small = ("--batch-size", "256", "--precision", "fp32", "--trials", "3", "--epochs", "3")
    processes = [
        start(
            ["search", family, *small, "--scheduler", "fifo", "--store", str(store), "--json"],
            tmp_path / f"{family}.log",
        )
        for family in ("vae", "autoencoder")
    ]
    outputs = [process.communicate(timeout=400)[0] for process in processes]
    logs = [(tmp_path / f"{family}.log").read_text() for family in ("vae", "autoencoder")]
    assert [process.returncode for process in processes] == [0, 0], logs
    results = [last_json(out) for out in outputs]
    assert results[0]["search_id"] != results[1]["search_id"]
    for result in results:
        assert len(result["ranking"]) == 3
        check_recorded(store, result)
        assert result["champion"]["version"] == "1"
    for log in logs:
        assert "Traceback" not in log and "set aside" not in log
