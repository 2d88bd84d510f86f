"""Crystals sent as a stream of batches give the run that crystals lying on the device give."""

import jax
import numpy as np
import pytest

from cgcnn_jax.train import feed
from cgcnn_jax.train.feed import fits_device

pytestmark = pytest.mark.usefixtures("quicker_compiling")


@pytest.fixture
def feeds(monkeypatch) -> list[str]:
    """Names of the feeds made from now on."""
    made: list[str] = []
    for name in ("DeviceFeed", "StreamFeed"):
        kind = getattr(feed, name)

        def counted(*args, name=name, kind=kind):
            made.append(name)
            return kind(*args)

        monkeypatch.setattr(f"cgcnn_jax.train.loop.{name}", counted)
    return made


def test_a_streamed_run_is_the_run_on_the_device(make_problem, feeds, monkeypatch, tmp_path):
    monkeypatch.setattr(feed, "_BLOCK", 2)  # steps an epoch do not divide by it: the last block is short
    settings = {"epochs": 4, "batch_size": 3}
    on_device = make_problem(model={"dropout": 0.3}, settings=settings | {"feed": "device"}).run()
    streamed = make_problem(model={"dropout": 0.3}, settings=settings | {"feed": "stream"}).run()
    assert feeds == ["DeviceFeed", "StreamFeed"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        on_device.state.weights,
        streamed.state.weights,
    )
    np.testing.assert_allclose(on_device.values, streamed.values, rtol=1e-5, atol=1e-5)


def test_a_streamed_run_stops_and_goes_on_to_the_same_bits(make_problem, assert_same, tmp_path):
    problem = make_problem(settings={"epochs": 3, "batch_size": 3, "feed": "stream"})
    whole = problem.run()
    steps = iter(range(100))
    problem.run(tmp_path, should_stop=lambda: next(steps) >= 4)
    resumed = problem.run(tmp_path)
    assert_same(jax.device_get(whole.state.weights), jax.device_get(resumed.state.weights))


def test_auto_streams_what_is_large_against_the_device(make_problem, feeds, monkeypatch):
    class Device:
        def __init__(self, limit):
            self.limit = limit

        def memory_stats(self):
            return self.limit and {"bytes_limit": self.limit}

    graphs = make_problem().graphs
    size = sum(array.nbytes for array in graphs)
    for limit, expected in ((None, True), (5 * size, True), (3 * size, False)):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "local_devices", lambda limit=limit: [Device(limit)])
            assert fits_device(graphs) is expected
    with monkeypatch.context() as patch:  # a CPU tells no limit; it has the machine's memory
        patch.setattr("cgcnn_jax.train.feed.os.sysconf", lambda name: 2 * size if name == "SC_PHYS_PAGES" else 1)
        assert not fits_device(graphs)
    # A view of one number 2^31 times: indices of so many edges have no room in 32 bits.
    assert not fits_device(graphs._replace(distances=np.broadcast_to(np.float32(1), 2**31)))
    monkeypatch.setattr("cgcnn_jax.train.loop.fits_device", lambda graphs: False)
    make_problem(settings={"epochs": 1, "feed": "auto"}).run()
    assert feeds == ["StreamFeed"]


def test_a_fault_of_the_padding_thread_ends_the_run(make_problem, monkeypatch):
    def broken(*args):
        raise OSError("the disk is gone")

    monkeypatch.setattr(feed, "take_batch", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        make_problem(settings={"epochs": 1, "feed": "stream"}).run()
