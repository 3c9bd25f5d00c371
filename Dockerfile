# Every stage of the pipeline with the versions of constraints.txt. Build it in the root of the clone:
#     docker build --tag pipeline .
#     docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD/output:/opt/pipeline/output" pipeline
# envs/pipeline.def says the same for Apptainer; a test compares the two.
FROM python:3.11-slim-bookworm

# Triton compiles the launchers of its kernels where the GPU is. ffmpeg comes with imageio-ffmpeg, pinned like the rest.
# Versions are not pinned here: Debian takes superseded ones off its servers, so that the image could not be built later.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

# The package is empty at first, so that an edit to its code does not fetch gigabytes of wheels again.
COPY constraints.txt pyproject.toml README.md LICENSE /opt/pipeline/
RUN mkdir /opt/pipeline/pipeline_lib && touch /opt/pipeline/pipeline_lib/__init__.py
RUN python -m pip install --no-cache-dir --constraint /opt/pipeline/constraints.txt --editable '/opt/pipeline[download,export]'

COPY Snakefile config.yaml /opt/pipeline/
COPY rules /opt/pipeline/rules
COPY workflow /opt/pipeline/workflow
COPY profiles /opt/pipeline/profiles
COPY envs /opt/pipeline/envs
COPY pipeline_lib /opt/pipeline/pipeline_lib

# Any user may run it: what Snakemake, numba and matplotlib remember lies in folders that everybody may write to.
RUN mkdir /opt/pipeline/.snakemake /opt/pipeline/output \
    && chmod 1777 /opt/pipeline/.snakemake /opt/pipeline/output \
    && useradd --uid 1000 --create-home pipeline
ENV LC_ALL=C.UTF-8 HOME=/tmp USER=pipeline
WORKDIR /opt/pipeline
USER 1000
ENTRYPOINT ["snakemake", "--cores", "all"]
CMD ["demo"]
