# The project with a software renderer, on CPU:   docker build -t embodichain .
# and then:                                       docker run --rm --shm-size=4g -v "$PWD/runs:/app/runs" embodichain run configs/quickstart.yaml
# For a CUDA build of torch:                      docker build --build-arg TORCH=cu128 -t embodichain .
# Debian 13 carries a Mesa that SAPIEN accepts.
FROM python:3.12-slim-trixie

ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
RUN apt-get update && apt-get install -y --no-install-recommends make git && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN make setup TORCH=${TORCH} && rm -rf /var/lib/apt/lists/*
ENV PATH=/app/.venv/bin:$PATH
ENTRYPOINT ["embodichain"]
CMD ["--help"]
