# An image with the project and its environment; the steps are those of scripts/setup.sh.
#
#   docker build -t tdmpc2 .
#   docker run --rm tdmpc2 doctor
#   docker run --rm -v "$PWD/runs:/opt/tdmpc2/runs" tdmpc2 train task=walker-walk env_steps=100_000
#
# Build arguments:
#   BASE             Debian or Ubuntu with Python 3.11 or 3.12 among its packages
#   TORCH_INDEX_URL  package index of torch, for a build without CUDA or for another CUDA version;
#                    by default the build on the default index, which on x86-64 supports CUDA
#
# On a GPU: docker run --gpus all … (needs the NVIDIA container toolkit on the host)
ARG BASE=debian:bookworm
FROM ${BASE}
ARG TORCH_INDEX_URL=
WORKDIR /opt/tdmpc2
COPY . .
RUN bash scripts/setup.sh && rm -rf /var/lib/apt/lists/* ~/.cache
ENV PATH=/opt/tdmpc2/.venv/bin:$PATH
ENTRYPOINT ["tdmpc2"]
CMD ["--help"]
