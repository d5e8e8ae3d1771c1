# Longshore's image: the package, its locked dependencies, uvloop, and what the example handlers need; no fleet file.
# A service of your own is `FROM longshore` and a COPY. Pin the base by digest where you can:
# `docker build --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:... .`
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# The stripper follows the base, and is not in the image.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/* \
 && python -m venv --without-pip /opt/longshore && python -m venv tools && mkdir state
COPY requirements.lock requirements-build.lock ./
# Symbols are two fifths of the wheels; without them, and without what modules were compiled from, tracebacks are the same.
RUN python -m pip --python /opt/longshore/bin/python install --no-compile --no-deps --require-hashes --only-binary :all: -r requirements.lock \
 && find /opt/longshore -name '*.so' -exec strip --strip-unneeded {} + \
 && find /opt/longshore -regex '.*\.\(c\|cpp\|h\|pxd\|pyx\)' -delete \
 && tools/bin/python -m pip install --no-deps --require-hashes --only-binary :all: -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY worker worker
RUN tools/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/longshore/bin/python install --no-compile --no-deps dist/*.whl

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/longshore /opt/longshore
COPY --from=build --chown=65532:65532 /build/state /var/lib/longshore
# Bytecode of all that a start imports, the standard library's too: nobody can write it later, and each start would compile anew.
RUN ["/opt/longshore/bin/python", "-c", "import asyncpg, uvloop, sqlalchemy.dialects.postgresql.asyncpg, sqlalchemy.dialects.sqlite, worker.cli.run, worker.cli.healthcheck, worker.cli.topology, worker.cli.publish_sending, worker.handlers.order_service"]
ENV PATH=/opt/longshore/bin:$PATH \
    HOME=/var/lib/longshore \
    LONGSHORE_CONFIG=/etc/longshore/fleet.yaml \
    LONGSHORE_STATE_DIR=/var/lib/longshore \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["longshore", "healthcheck"]
ENTRYPOINT ["longshore"]
CMD ["run"]

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Longshore" \
      org.opencontainers.image.description="A fleet of long-running workers for events that travel SNS topic -> SQS queues -> handlers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
