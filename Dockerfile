# medseg and the models it ships, on the CPU; docs/how-to/deploy.md says how to build it, also without a network, and how
# to run it on a GPU.
FROM python:3.11-slim-bookworm AS wheels
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY medseg medseg
COPY bundles bundles
# the CPU build of torch is a fifth of the size of the default one
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip wheel --no-cache-dir --wheel-dir /wheels --constraint constraints.txt --extra-index-url "${TORCH_INDEX}" ".[numba]"

FROM python:3.11-slim-bookworm
COPY --from=wheels /wheels /wheels
# the versions are those of the wheels, which constraints.txt pinned
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --no-index --find-links /wheels "medseg[numba]" \
    && rm -r /wheels \
    && useradd --create-home --uid 1000 medseg
USER 1000
WORKDIR /home/medseg
ENTRYPOINT ["medseg"]
CMD ["--help"]
