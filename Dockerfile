# The project with a software renderer. Two targets, one set of constraints (constraints.txt; torch apart):
#   docker build --target cpu  -t embodichain:cpu .
#   docker build --target cuda -t embodichain:cuda .          a CUDA build of torch, for nodes with NVIDIA GPUs
# and then, for example:
#   docker run --rm --shm-size=4g -v "$PWD/runs:/app/runs" embodichain:cpu run configs/quickstart.yaml
# Nodes of a Ray cluster start the same image with  --entrypoint ray ... start --address=HEAD:6379 --block
# Debian 13 carries a Mesa that SAPIEN accepts.
FROM python:3.12-slim-trixie AS base

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 PATH=/app/.venv/bin:$PATH
RUN apt-get update && apt-get install -y --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /app
# What the environment depends on, first: a change of the code alone builds no environment.
COPY pyproject.toml constraints.txt Makefile ./
COPY scripts scripts
RUN for package in embodichain envs tasks learner benchmarks; do mkdir $package && touch $package/__init__.py; done && \
    touch README.md

FROM base AS cuda
ARG TORCH=cu128
RUN make setup TORCH=${TORCH} EXTRAS=dev,postgres && rm -rf /var/lib/apt/lists/*
COPY . .
ENTRYPOINT ["embodichain"]
CMD ["--help"]

FROM base AS cpu
RUN make setup TORCH=cpu EXTRAS=dev,postgres && rm -rf /var/lib/apt/lists/*
COPY . .
ENTRYPOINT ["embodichain"]
CMD ["--help"]
