# The collector's image. The base is an argument, so that a machine without a registry can build on its own.
# Not published and not yet built in CI: see CHANGELOG.md.
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/keytrail
COPY requirements requirements
RUN /opt/keytrail/bin/python -m pip install --require-hashes -r requirements/collector.txt \
 && python3 -m venv /opt/build && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY collector collector
COPY operator operator
COPY policies policies
RUN /opt/build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/keytrail/bin/python -m pip install --no-deps --no-index /wheels/*.whl

FROM ${BASE}
# PYTHONSAFEPATH keeps the working directory off the import path: a folder named like a module must not replace it.
ENV PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/keytrail /opt/keytrail
# Group 0 may open the agent's socket (root:root, 0660); no capability and no root user is needed.
USER 65532:0
ENTRYPOINT ["/opt/keytrail/bin/keytrail"]
CMD ["collect"]
