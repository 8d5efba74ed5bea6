# Secateur in a container. By default it runs the demo:
#   docker build --tag secateur . && docker run --rm secateur
#   docker run --rm --volume "$PWD:/work" secateur prune --weights best.pt --images images/ --flops 0.5 --heal
# With a GPU, on a base with CUDA:
#   docker build --build-arg BASE=nvidia/cuda:13.0.2-base-ubuntu24.04 --tag secateur . && docker run --rm --gpus all secateur
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

# Extras of the package (docs/install.md).
ARG EXTRAS=all
# Address of a package index with CPU builds of PyTorch, as PyTorch's install page names it; empty: the build with CUDA.
ARG TORCH_INDEX=""

# A base with CUDA has no Python.
RUN if ! python3 -m venv --help > /dev/null 2>&1; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends python3 python3-venv \
        && rm -rf /var/lib/apt/lists/*; \
    fi

ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 XDG_CACHE_HOME=/work/.cache

WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
# `===` in the constraints refuses the CPU builds, whose version has a suffix.
RUN python3 -m venv /opt/venv \
    && sed 's/^torch===/torch==/' constraints.txt > /tmp/constraints.txt \
    && if [ -n "${TORCH_INDEX}" ]; then \
        pip install --constraint /tmp/constraints.txt --index-url "${TORCH_INDEX}" torch torchvision; \
    fi
COPY src src
RUN pip install --constraint /tmp/constraints.txt ".[${EXTRAS}]"

# Runs are written as this user into /work.
RUN useradd --create-home --uid 10001 secateur && mkdir /work && chown secateur /work
USER secateur
WORKDIR /work

ENTRYPOINT ["secateur"]
CMD ["demo"]
