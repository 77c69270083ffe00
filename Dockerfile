# One image for every part of the node; the command names the part (receiver, worker, sweep, worklist).
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 CMBNODE_DATA_DIR=/data
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin cmbnode \
 && install -d -o cmbnode -g cmbnode -m 0750 /data

WORKDIR /opt/cmb-node
COPY pyproject.toml requirements.lock README.md ./
# The dependencies change rarely and are large: a layer of their own, resolved from the metadata alone.
RUN mkdir node pipeline training && touch node/__init__.py pipeline/__init__.py training/__init__.py \
 && pip install --constraint requirements.lock . && pip uninstall -y cmb-node
COPY node node
COPY pipeline pipeline
COPY training training
RUN pip install --no-deps .

USER cmbnode
WORKDIR /data
VOLUME /data
EXPOSE 11112 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["cmbnode"]
CMD ["--help"]
