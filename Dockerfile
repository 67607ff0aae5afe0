# How to build it with an SBOM and its provenance: docs/containers.md.
ARG PYTHON=python:3.12.13-slim-bookworm

FROM ${PYTHON} AS wheel
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The build backend, of the same version as for development.
COPY requirements-build.txt ./
RUN pip install --require-hashes -r requirements-build.txt
COPY pyproject.toml README.md ./
COPY consumer consumer
COPY publisher publisher
COPY sql sql
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .

FROM ${PYTHON}
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
# Behind all that takes long, since they differ from build to build.
ARG VERSION=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="fleettickets" \
      org.opencontainers.image.description="Trouble-ticket change files from an S3 bucket into PostgreSQL/PostGIS, exactly once" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
