"""The modules that each stage runs: the closure of these is the stage's fingerprint, which is a parameter of its rule.

Names only: importing a stage would import torch, and the Snakefile asks on every start.
"""

from pipeline_lib.evaluation.code import ensemble_modules, evaluation_modules, retrieval_modules
from pipeline_lib.flow.code import STRENGTH, motion_modules
from pipeline_lib.manifests.code import manifest_modules
from pipeline_lib.reporting.code import REPORT
from pipeline_lib.training.code import training_modules

GENERATE = ("pipeline_lib.generation.stage",)
FRAMES = ("pipeline_lib.media.frames_stage",)

__all__ = (
    "FRAMES",
    "GENERATE",
    "REPORT",
    "STRENGTH",
    "ensemble_modules",
    "evaluation_modules",
    "manifest_modules",
    "motion_modules",
    "retrieval_modules",
    "training_modules",
)
