# One image for every part of the node; the command names the part (receiver, worker, sweep, worklist, or up for all).
#
#   docker build -t cmb-node .                              analyses on the CPU
#   docker build -t cmb-node:cuda --build-arg DEVICE=cuda . and on an NVIDIA GPU
#
# The lock files name the files for this Python and this glibc.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS wheel
WORKDIR /build
COPY requirements-build.lock .
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md ./
COPY node node
COPY pipeline pipeline
COPY training training
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && python3 -m venv --without-pip /opt/cmb-node \
 && /opt/build/bin/pip --python /opt/cmb-node/bin/python3 install --no-index --no-deps /dist/*.whl

# The dependencies are large and change rarely: a stage that sees nothing but the lock files.
FROM ${BASE} AS dependencies
ARG DEVICE=cpu
# Where pip finds PyTorch's CPU build, if the default index lacks it: another index, or a folder of wheels.
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
COPY requirements.lock requirements-cpu.lock ./
RUN python3 -m venv /opt/cmb-node
ENV PATH=/opt/cmb-node/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN lock=requirements.lock; \
    if [ "$DEVICE" = cpu ]; then \
      if pip download --no-deps --dest /torch "$(sed -n 's/ --hash.*//; /^torch==/p' requirements-cpu.lock)"; \
      then lock=requirements-cpu.lock; \
      else echo "PyTorch's CPU build was not found: installing the one with CUDA, which is gigabytes larger" >&2; fi; \
    fi; \
    pip install --require-hashes --find-links /torch -r $lock

FROM ${BASE}
RUN groupadd --gid 10001 cmbnode \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin cmbnode \
 && install -d -o 10001 -g 10001 -m 0700 /data
ENV PATH=/opt/cmb-node/bin:$PATH
COPY --from=dependencies /opt/cmb-node /opt/cmb-node
COPY --from=wheel /opt/cmb-node /opt/cmb-node
# The modules of the worker, which load the whole pipeline: an incomplete image is not built.
RUN python -c "import node.cli, node.run.workers, node.run.supervisor, pipeline.detect"

ENV PYTHONUNBUFFERED=1 CMBNODE_DATA_DIR=/data CMBNODE_ALIVE_FILE=/tmp/alive
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 11112 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s CMD ["python", "-m", "node.processes.alive"]
ENTRYPOINT ["cmbnode"]
CMD ["--help"]
