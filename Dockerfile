# The one image of collector and operator: `docker build --tag keytrail:0.1.0 .` (docs/release.md).
# The base is an argument: a release names it by digest, and a machine without a registry brings its own (tests/cluster/image).
# It needs Python 3.11 or newer with venv, as `python3`, at the same path in both stages.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# pip and hatchling stay in a second environment: what runs on a node can install nothing.
RUN python3 -m venv --without-pip /opt/keytrail && python3 -m venv /opt/build
COPY requirements requirements
RUN /opt/build/bin/python -m pip install --require-hashes --requirement requirements/build.txt \
 && /opt/build/bin/python -m pip --python /opt/keytrail/bin/python install --require-hashes --only-binary :all: \
      --requirement requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY collector/src collector/src
COPY operator/src operator/src
COPY policies policies
# A wheel, so that nothing points back at a source tree; no index, so that nothing comes in beside the locked packages.
RUN /opt/build/bin/python -m pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
 && /opt/build/bin/python -m pip --python /opt/keytrail/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Keytrail" \
      org.opencontainers.image.description="Which machine identity did which process use, where to, and was that expected?" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# PYTHONSAFEPATH keeps the working directory off the import path: a folder named like a module must not replace it.
ENV PATH=/opt/keytrail/bin:${PATH} PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/keytrail /opt/keytrail
WORKDIR /
# Group 0 may open the agent's socket (root:root, 0660); no capability and no root user is needed.
USER 65532:0
ENTRYPOINT ["/opt/keytrail/bin/keytrail"]
CMD ["collect"]
