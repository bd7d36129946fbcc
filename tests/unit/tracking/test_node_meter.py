"""What a node does, as MLflow's collectors see it."""

import time

from pipelines.tracking.mlflow.node_meter import NodeMeter


def read_soon(meter: NodeMeter) -> dict[str, float]:
    """Return the first reading that is not empty."""
    deadline = time.monotonic() + 120
    while not (values := meter.read()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return values


def test_a_node_is_sampled_by_mlflow_s_names() -> None:
    meter = NodeMeter(every_seconds=0.01)
    try:
        values = read_soon(meter)
        assert 0.0 <= values["cpu_utilization_percentage"] <= 100.0
        assert 0.0 < values["system_memory_usage_percentage"] < 100.0
        assert values["system_memory_usage_megabytes"] > 100.0
        assert read_soon(meter).keys() == values.keys()  # sampling goes on
    finally:
        meter.close()


def test_a_short_search_has_no_samples() -> None:
    meter = NodeMeter(every_seconds=60.0)
    assert meter.read() == {}
    meter.close()
