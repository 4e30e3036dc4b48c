"""Use the daily images that lie in the output: they have the values that a composite needs."""

from dataclasses import replace

from s2cube.fetch.store import Access
from s2cube.inventory.stored_image import whole_images
from s2cube.jobs.job import Job
from s2cube.products.composer import Composer
from s2cube.workers.composite_task import CompositeTask


def with_daily_images(job: Job, composer: Composer) -> Job:
    """Add to each composite of a job the images of its days that are in the output, of the same recipe.

    The job is unchanged if it overwrites.
    """
    if job.config.job.overwrite:
        return job
    tasks = [task for task in job.todo if isinstance(task, CompositeTask)]
    read = job.config.read
    images = whole_images(
        job.output,
        {(task.aoi.id, day.id): day.recipe for task in tasks for day in task.days},
        composer.reading.image_bands,
        Access(read.timeout_s, read.retries, read.tokens, read.stores),
    )
    with_images = (
        replace(task, stored={day.id: images[day.id] for day in task.days if day.id in images}) for task in tasks
    )
    return replace(job, todo=tuple(with_images))
