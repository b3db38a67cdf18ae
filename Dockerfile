# One image for every role; the command says which.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY requirements/build.in requirements/image.txt requirements/
RUN python -m venv /opt/taskyard \
 && /opt/taskyard/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/image.txt
COPY . .
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --no-cache-dir build \
 && /opt/build/bin/python -m build --wheel --outdir /dist \
 && /opt/taskyard/bin/pip install --no-cache-dir --no-deps /dist/*.whl

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --create-home taskyard
COPY --from=build /opt/taskyard /opt/taskyard
ENV PATH=/opt/taskyard/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/taskyard
ENTRYPOINT ["taskyard"]
CMD ["--help"]
