"""The modules of the report stage: the page, and the presentation of each task."""

from pipeline_lib.tasks import TASKS

SHAPES_NO_ARTEFACT = True

REPORT = ("pipeline_lib.reporting.report", *(f"pipeline_lib.tasks.{task}.presentation" for task in TASKS))
