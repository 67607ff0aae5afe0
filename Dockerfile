FROM python:3.12-slim AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The build backend is pinned with the other tools of development.
COPY requirements-dev.txt ./
RUN pip install --require-hashes -r requirements-dev.txt
COPY pyproject.toml README.md ./
COPY consumer consumer
COPY publisher publisher
COPY sql sql
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

FROM python:3.12-slim
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TZ=Africa/Nairobi
# What one large file needed goes back to the system, instead of being kept for the next one by each thread.
ENV MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=1048576
# Without the zone's file everything would quietly run in UTC.
RUN test -e "/usr/share/zoneinfo/$TZ" \
    && useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin fleettickets
# With what can send spans, which is 11 MB and imported only where it is to.
COPY requirements.txt /tmp/requirements.txt
RUN pip install --require-hashes -r /tmp/requirements.txt
COPY --from=wheel /wheel /tmp/wheel
RUN pip install --no-deps /tmp/wheel/*.whl
# Where a mounted .env is looked for.
WORKDIR /srv
USER fleettickets
ENTRYPOINT ["fleettickets"]
CMD ["consume"]
