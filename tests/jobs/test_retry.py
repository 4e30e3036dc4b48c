"""Which results of a slice are final, and after which pause it is retried."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import KilledWorker
from odc.geo.geom import box

from s2cube.area.aoi import AOI
from s2cube.cluster.policy import Retry
from s2cube.errors import AssetReadError, BusyError, ClusterError, S2CubeError, WriteError
from s2cube.fetch.traffic import Traffic
from s2cube.jobs.slice_policy import SlicePolicy
from s2cube.scenes.time_slice import Task, TimeSlice
from s2cube.workers.batches import Batch
from s2cube.workers.results import SliceResult, failed

RETRIES = 2
WORKER: Any = SimpleNamespace(address="tcp://10.0.0.1:1")


@pytest.fixture
def task() -> Task:
    area = AOI("x", box(0, 0, 1, 1, "EPSG:4326"))
    return Task(area, None, TimeSlice("x_1", None, None, (), (), ""))  # type: ignore[arg-type]


def unreadable(may_pass: bool) -> AssetReadError:
    error = AssetReadError("b.tif", "cannot be read", "Run again")
    error.may_pass = may_pass
    return error


def decide(
    task: Task, returned: SliceResult | BaseException, attempt: int
) -> SliceResult | Retry[Batch, list[SliceResult]]:
    """Decide on a batch of one slice."""
    answer = returned if isinstance(returned, BaseException) else [returned]
    decision = SlicePolicy(RETRIES).decide(Batch((task,)), answer, attempt)
    return decision if isinstance(decision, Retry) else decision[0]


def of_three(task: Task) -> Batch:
    return Batch(tuple(replace(task, slice=replace(task.slice, id=f"x_{day}")) for day in (1, 2, 3)))


def test_only_the_slices_that_failed_are_retried(task: Task) -> None:
    batch, traffic = of_three(task), Traffic(5, 100)
    busy = replace(failed(batch.tasks[0], unreadable(may_pass=True)), traffic=traffic)
    returned = [busy, SliceResult("x_2", path="x_2.tif"), failed(batch.tasks[2], unreadable(may_pass=False))]
    decision = SlicePolicy(RETRIES).decide(batch, returned, 1)
    assert isinstance(decision, Retry)
    assert decision.tasks == (("x_1", Batch(batch.tasks[:1], attempt=2)),)
    assert decision.final == [replace(returned[1], traffic=traffic), returned[2]]
    assert SlicePolicy(RETRIES).decide(batch, returned, RETRIES + 1) is returned


@pytest.mark.parametrize("attempt", [1, RETRIES + 1])
@pytest.mark.parametrize("error", [KilledWorker("x_1", WORKER, 3), ValueError("a bug")])
def test_a_batch_that_ends_without_results_is_divided(task: Task, error: Exception, attempt: int) -> None:
    """One slice may be the cause. The others must not fail with it."""
    batch = of_three(task)
    decision = SlicePolicy(RETRIES).decide(batch, error, attempt)
    assert isinstance(decision, Retry)
    assert decision.tasks == tuple((each.id, Batch((each,), attempt + 1)) for each in batch.tasks)


def test_success_is_final(task: Task) -> None:
    result = SliceResult("x_1", path="x_1.tif")
    assert decide(task, result, 1) is result


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_temporary_failure_is_retried_after_pauses_that_double(task: Task, attempt: int) -> None:
    result = failed(task, unreadable(may_pass=True))
    decision = decide(task, result, attempt)
    if attempt > RETRIES:
        assert decision is result
    else:
        assert isinstance(decision, Retry)
        assert 2**attempt <= decision.pause_s <= 1.5 * 2**attempt


def test_a_lasting_failure_is_final(task: Task) -> None:
    result = failed(task, unreadable(may_pass=False))
    assert decide(task, result, 1) is result
    bug = decide(task, ValueError("a bug"), 1)
    assert isinstance(bug, SliceResult)
    assert bug.failure is not None
    assert bug.failure.error == "ValueError: a bug"


def test_a_slice_whose_workers_die_is_retried_then_fails(task: Task) -> None:
    error = KilledWorker("x_1", WORKER, 3)
    again = decide(task, error, RETRIES)
    assert isinstance(again, Retry)
    assert again.tasks == (("x_1", Batch((task,), RETRIES + 1)),)
    result = decide(task, error, RETRIES + 1)
    assert isinstance(result, SliceResult)
    assert result.failure is not None


def test_an_output_that_cannot_be_written_ends_the_run_after_retries(task: Task) -> None:
    error = WriteError("out", "cannot be written", "Free disk space")
    assert isinstance(decide(task, error, RETRIES), Retry)
    with pytest.raises(WriteError):
        decide(task, error, RETRIES + 1)


@pytest.mark.parametrize(
    ("returned", "raised", "message"),
    [
        (BusyError("out", "is written by another run now", "Wait"), BusyError, "another run"),
        (ImportError("No module named 's2cube'"), ClusterError, "a worker: cannot load s2cube"),
    ],
)
def test_what_no_slice_can_survive_ends_the_run_at_once(
    task: Task, returned: BaseException, raised: type[S2CubeError], message: str
) -> None:
    with pytest.raises(raised, match=message):
        decide(task, returned, 1)
