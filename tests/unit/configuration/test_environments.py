"""The conda environments of the rules hold what their stages import, in the pinned versions.

After a wanted change: ``python tests/unit/configuration/test_environments.py`` writes them.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from image_in_root import instructions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline_lib.artefacts.fingerprint import PACKAGE_FOLDER, closure, module_file
from pipeline_lib.configuration.data import Motion
from pipeline_lib.configuration.formats import FORMATS
from pipeline_lib.configuration.motions import METHODS
from pipeline_lib.evaluation.code import ensemble_modules, evaluation_modules
from pipeline_lib.flow.code import motion_modules
from pipeline_lib.models.catalogue import INCEPTION, RESNET, SLOW
from pipeline_lib.planning import code
from pipeline_lib.planning.plan import load_plan
from pipeline_lib.training.code import training_modules

REPOSITORY = Path(__file__).resolve().parents[3]
# In every stage: what reads the specification, and notes and draws progress.
COMMON = ("artefacts", "configuration")
# Optional: only on machines that have them.
OPTIONAL = {"triton"}
# What a library needs for the part of it that is used: pandas for parquet, torch.utils.tensorboard.
BEHIND = {"training": {"pyarrow", "tensorboard"}, "report": {"pyarrow"}}


def _training() -> list[str]:
    plan = load_plan(REPOSITORY)
    modules = {module for name in plan.trained_names for module in training_modules(plan.runs(name)[0].training)}
    return [
        *modules,
        *evaluation_modules("s3dg_slim", "classification"),
        *ensemble_modules("classification"),
        INCEPTION,
        RESNET,
        SLOW,
        "pipeline_lib.models.importing.publishers",
    ]


STAGES = {
    "download": ["pipeline_lib.downloads.stage", "pipeline_lib.media.ffmpeg"],
    "media": [
        *code.GENERATE,
        "pipeline_lib.manifests.build",
        *(one.module for one in FORMATS.values() if one.importer is not None),
        *code.FRAMES,
    ],
    "flow": [module for method in METHODS for module in motion_modules(Motion(method=method))],
    "training": _training(),
    "report": code.REPORT,
}


def imported(modules: list[str]) -> set[str]:
    """The distributions that modules import, anywhere in their text."""
    files = {module_file(module) for module in closure(modules)}
    for room in COMMON:
        files.update((PACKAGE_FOLDER / room).glob("*.py"))
    names: set[str] = set()
    for file in files:
        assert file is not None
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    known = packages_distributions()
    outside = names - set(sys.stdlib_module_names) - {"pipeline_lib"} - OPTIONAL
    return {canonicalize_name(known[name][0]) for name in outside}


def with_requirements(names: set[str]) -> set[str]:
    """Distributions and all that they require here."""
    found: set[tuple[str, str]] = set()
    waiting = [(name, "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                below = canonicalize_name(requirement.name)
                waiting += [(below, ""), *((below, one) for one in requirement.extras)]
    return {name for name, _ in found}


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {
        canonicalize_name(line.partition("==")[0]): line.strip()
        for line in lines
        if line.strip() and not line.startswith("#")
    }


def expected(name: str) -> list[str]:
    constraints = pins()
    # An environment has setuptools with pip.
    needed = with_requirements(imported(STAGES[name]) | BEHIND.get(name, set())) - {"setuptools"}
    assert needed <= set(constraints), f"constraints.txt does not pin {sorted(needed - set(constraints))}"
    return sorted(constraints[one] for one in needed)


def path(name: str) -> Path:
    return REPOSITORY / "envs" / f"{name}.yaml"


@pytest.mark.parametrize("name", STAGES)
def test_an_environment_holds_what_its_stages_import_as_pinned(name: str) -> None:
    content = yaml.safe_load(path(name).read_text(encoding="utf-8"))
    assert content["channels"] == ["conda-forge"]
    python, pip, packages = content["dependencies"]
    assert (python, pip) == ("python=3.11", "pip")
    listed = packages["pip"]
    assert listed == sorted(set(listed))
    assert set(listed) <= set(pins().values())
    # A build of torch for the CPU requires less than the environment holds.
    assert set(expected(name)) <= set(listed), "see this file's head"


def test_the_machine_that_only_decodes_needs_no_torch() -> None:
    assert not any(line.startswith("torch") for line in expected("media"))
    assert any(line.startswith("torch==") for line in expected("training"))


def test_every_rule_with_a_command_names_an_environment_that_exists() -> None:
    for file in (REPOSITORY / "rules").glob("*.smk"):
        text = file.read_text(encoding="utf-8")
        named = re.findall(r'^        "\.\./envs/(\w+)\.yaml"$', text, re.MULTILINE)
        assert len(named) == len(re.findall(r"^    shell:$", text, re.MULTILINE)), file
        assert set(named) <= set(STAGES), file


PIPELINE = "/opt/pipeline/"


def apptainer() -> tuple[str, dict[str, str], list[str]]:
    """Base image, copied files with their targets, and commands of envs/pipeline.def."""
    text = (REPOSITORY / "envs/pipeline.def").read_text(encoding="utf-8")
    (base,) = re.findall(r"^From: (\S+)$", text, re.MULTILINE)
    sections = dict(re.findall(r"^%(\w+)\n((?:    .*\n|\n)+)", text, re.MULTILINE))
    files = dict(line.split() for line in sections["files"].strip().splitlines())
    return base, files, [line.strip() for line in sections["post"].strip().splitlines()]


def docker() -> tuple[str, dict[str, str], list[str]]:
    """The same of the Dockerfile."""
    steps = list(instructions((REPOSITORY / "Dockerfile").read_text(encoding="utf-8")))
    (base,) = (rest for name, rest in steps if name == "FROM")
    files = {}
    for *sources, target in (rest.split() for name, rest in steps if name == "COPY"):
        # Docker copies files below a target that ends in a slash, and what a folder holds into a folder.
        files |= {source: target + source if target.endswith("/") else target for source in sources}
    return base, files, [part.strip() for name, rest in steps if name == "RUN" for part in rest.split("&&")]


@pytest.mark.parametrize("container", [apptainer, docker])
def test_a_container_installs_this_project_with_the_same_pins(
    container: Callable[[], tuple[str, dict[str, str], list[str]]],
) -> None:
    base, files, commands = container()
    assert all((REPOSITORY / source).exists() and target == PIPELINE + source for source, target in files.items())
    # What building the package needs is there, and nothing is installed but under the constraints.
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"constraints.txt", "pyproject.toml", "pipeline_lib", "LICENSE"} <= set(files)
    assert project["project"].get("readme", "README.md") in files
    (install,) = (command for command in commands if "pip install" in command)
    assert f"--constraint {PIPELINE}constraints.txt" in install
    (extras,) = re.findall(r"/opt/pipeline\[([\w,]+)\]", install)
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])
    python = yaml.safe_load((REPOSITORY / "envs/training.yaml").read_text(encoding="utf-8"))["dependencies"][0]
    assert base.startswith(f"python:{python.removeprefix('python=')}-")


def test_both_containers_say_the_same() -> None:
    (base, _, commands), (other_base, _, other_commands) = apptainer(), docker()
    assert base == other_base
    # Docker has its own steps between them: the empty package, and folders that everybody may write to.
    assert [command for command in other_commands if command in commands] == commands
    assert not [command for command in other_commands if "install " in command and command not in commands]


def test_the_dockerfile_copies_the_whole_project_and_runs_it_as_an_ordinary_user() -> None:
    _, files, _ = docker()
    assert {"Snakefile", "config.yaml", "rules", "workflow", "profiles", "pipeline_lib"} <= set(files)
    # What is not on this list stays outside of the build, above all the output.
    listed = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in listed and {line[1:] for line in listed if line.startswith("!")} == set(files)
    steps = dict(instructions((REPOSITORY / "Dockerfile").read_text(encoding="utf-8")))
    # A number: whoever starts the container can see that it is not root.
    assert int(steps["USER"]) > 0


def test_a_linter_finds_nothing_in_the_dockerfile() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    outcome = subprocess.run([linter, REPOSITORY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0 and not outcome.stdout, outcome.stdout


if __name__ == "__main__":
    for stage in STAGES:
        document = {
            "channels": ["conda-forge"],
            "dependencies": ["python=3.11", "pip", {"pip": expected(stage)}],
        }
        path(stage).write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
