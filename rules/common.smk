"""The configuration, checked, and the helpers of the rules: thin, since the logic is in pipeline_lib/configuration."""

import sys

from snakemake.exceptions import WorkflowError

# The library that lies beside this Snakefile, here and in every job, whatever else is installed.
if sys.path[0] != workflow.basedir:
    sys.path.insert(0, workflow.basedir)
from pipeline_lib.errors import UserError
from pipeline_lib.jobs import Jobs, load_plan, use_this_library

use_this_library(workflow.basedir)


class UserProblem(WorkflowError):
    """Printed by Snakemake as its message alone: where in the Snakefile it was noticed is of no use to a user."""

    __traceback__ = property(lambda self: None, lambda self, value: None)


try:
    PLAN = load_plan(workflow.basedir, workflow.overwrite_configfiles, workflow.config_settings.config)
except UserError as error:
    raise UserProblem(str(error)) from None

JOBS = Jobs(PLAN, UserProblem)
LAYOUT = PLAN.layout


wildcard_constraints:
    dataset=JOBS.one_of(PLAN.configuration.datasets),
    frame_format=JOBS.one_of(PLAN.configuration.frame_formats),
    motion=JOBS.one_of(PLAN.configuration.motions),
    protocol=JOBS.one_of(PLAN.configuration.protocols),
    shard=r"\d+",
    split=r"\d+",
    seed=r"\d+",
