# The operator's image.  What it installs is pinned by hash in requirements.txt and requirements-build.txt, and nothing is
# resolved or built in a way that could differ from one day to the next.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY requirements-build.txt requirements.txt ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.txt
RUN python -m venv --without-pip /opt/regcred \
 && pip --python /opt/regcred/bin/python install --no-cache-dir --no-deps --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
 && pip --python /opt/regcred/bin/python install --no-cache-dir --no-deps --no-index dist/*.whl

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="regcred" \
      org.opencontainers.image.description="Keeps a working pull Secret in every chosen namespace" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/regcred /opt/regcred
# The root file system is read-only where it runs, so bytecode was compiled by the installation above.
ENV PATH=/opt/regcred/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that the kubelet can see that it is not root.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["regcred"]
CMD ["run"]
