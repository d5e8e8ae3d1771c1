# LocalStack from its packages, as the strict tests run it.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends curl && rm -rf /var/lib/apt/lists/*
COPY requirements-localstack.lock /
RUN python -m venv /opt/localstack && /opt/localstack/bin/python -m pip install --no-cache-dir --no-deps --require-hashes -r /requirements-localstack.lock
ENV GATEWAY_LISTEN=0.0.0.0:4566 \
    LOCALSTACK_VOLUME_DIR=/var/lib/localstack FILESYSTEM_ROOT=/var/lib/localstack \
    OVERRIDE_IN_DOCKER=0 DNS_ADDRESS=0 DISABLE_EVENTS=1
STOPSIGNAL SIGTERM
CMD ["/opt/localstack/bin/python", "-m", "localstack.runtime.main"]
