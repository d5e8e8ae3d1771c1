# A mail server in Python that takes or refuses recipients as Mailpit is told to.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
COPY mail.txt /
RUN python -m venv /opt/mail && /opt/mail/bin/python -m pip install --no-cache-dir --no-deps --require-hashes -r /mail.txt
COPY mail.py /
USER 65532:65532
CMD ["/opt/mail/bin/python", "-u", "/mail.py"]
