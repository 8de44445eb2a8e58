# The images `worker` (workers, Flower, the command line) and `sandbox` (both services, for trying out). Neither has pip,
# a compiler, or root; both run with a read-only root file system, /tmp apart.
#
#   docker build --target worker --tag bridge-tasks .
#
# Where a build reaches its package index only over the host's network, add --network host. Any image of Debian with
# Python 3.11 or newer serves as BASE.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
ENV PATH=/opt/bridge/bin:$PATH PYTHONUNBUFFERED=1

# Dependencies first, over a package that is still empty: a change of our code does not fetch them again.
FROM base AS libraries
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/bridge
WORKDIR /src
COPY pyproject.toml constraints.txt ./
RUN mkdir bridge_tasks && touch bridge_tasks/__init__.py README.md LICENSE \
 && pip install --constraint constraints.txt '.[flower,local-hash]'

FROM libraries AS package
COPY README.md LICENSE ./
COPY bridge_tasks bridge_tasks
RUN pip install --no-deps --force-reinstall .

FROM package AS worker-build
RUN pip uninstall --yes setuptools pip

FROM package AS sandbox-build
RUN pip install --constraint constraints.txt '.[services]' && pip uninstall --yes setuptools pip

FROM base AS running
RUN groupadd --system --gid 10001 bridge \
 && useradd --system --uid 10001 --gid bridge --no-create-home --shell /usr/sbin/nologin bridge \
 && install --directory --owner bridge /stamps
USER 10001:10001
WORKDIR /tmp

FROM running AS sandbox
COPY --from=sandbox-build /opt/bridge /opt/bridge
EXPOSE 8053 8058
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as r; [r.urlopen(f'http://127.0.0.1:{p}/health', timeout=2) for p in (8053, 8058)]"]
CMD ["python", "-m", "bridge_tasks.sandbox", "--host", "0.0.0.0"]

FROM running AS worker
COPY --from=worker-build /opt/bridge /opt/bridge
COPY celeryconfig.py /etc/bridge/celeryconfig.py
ENV PYTHONPATH=/etc/bridge CELERY_CONFIG_MODULE=celeryconfig BRIDGE_WORKER__PULSE=/tmp/bridge-worker.pulse
STOPSIGNAL SIGTERM
# Whether it consumes, not only whether it is alive; docs/containers.md tells what counts.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["bridge-tasks", "probe"]
CMD ["celery", "-A", "bridge_tasks.app", "worker", "--concurrency", "auto"]
