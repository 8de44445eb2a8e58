# One image for workers, Flower and the sandbox services. Built in two stages; runs without root.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY bridge_tasks bridge_tasks
RUN python3 -m venv /opt/bridge \
 && /opt/bridge/bin/pip install --no-cache-dir --constraint constraints.txt '.[flower,sandbox]'

FROM ${BASE}
RUN useradd --system --uid 10001 --no-create-home bridge
COPY --from=build /opt/bridge /opt/bridge
COPY celeryconfig.py /etc/bridge/celeryconfig.py
ENV PATH=/opt/bridge/bin:$PATH PYTHONPATH=/etc/bridge PYTHONUNBUFFERED=1 CELERY_CONFIG_MODULE=celeryconfig
USER bridge
WORKDIR /tmp
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "bridge_tasks.app", "worker"]
