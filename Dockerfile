# Understudy in a container: docs/howto/container.md. The first stage installs, the last runs; between them, notebooks, Ray, vLLM.
ARG BASE=python:3.11-slim-bookworm
ARG VLLM=vllm/vllm-openai:v0.32.0

FROM ${BASE} AS build
# Additional pip arguments for torch, as in the Makefile: "--index-url …" selects the index of another build.
ARG TORCH_ARGS=""
# Further lists of requirements/ by name: "voice llamacpp" brings speech recognition and llama.cpp.
ARG EXTRAS=""
# The compiler stays in this stage. It compiles the engine's kernel for processors with AVX-512 BF16.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY pyproject.toml ./
COPY requirements requirements
# As in the Makefile, everything by its hash.
# hadolint ignore=SC2086
RUN python -m venv /opt/venv \
    && TORCH_ARGS=${TORCH_ARGS} requirements/install.sh /opt/venv/bin/python lock model ${EXTRAS}
COPY LICENSE README.md hatch_build.py ./
COPY personas personas
COPY trainer trainer
COPY sandbox sandbox
COPY bot bot
COPY data data
COPY examples examples
# The kernel exists for x86-64 only.
RUN pip install --no-deps --no-build-isolation --editable . && python -m personas.models.bundled_model \
    && if [ "$(uname -m)" = x86_64 ]; then python -m personas.engine.cpu_kernel; fi
# After what takes long: the dashboard shows them.
COPY docs docs

# JupyterLab with the project and its notebooks, compiler included: --target notebooks.
FROM build AS notebooks
RUN pip install --no-deps --require-hashes --requirement requirements/notebooks.txt \
    && useradd --uid 10001 --create-home understudy && install --directory --owner understudy --mode 0700 /data \
    && chown --recursive understudy examples/notebooks
ENV UNDERSTUDY_HOME=/data HF_HOME=/data/.hub NOTEBOOKS_OUT=/data/notebooks OMP_WAIT_POLICY=PASSIVE
USER 10001
VOLUME /data
EXPOSE 8888
# Jupyter reads its token from JUPYTER_TOKEN, and makes one up without it.
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--ServerApp.root_dir=/app/examples/notebooks"]

# A node of a Ray cluster, whose `python` is the trainer's; Ray has an environment of its own: --target ray.
FROM build AS ray
RUN python -m venv /opt/ray && /opt/ray/bin/pip install "ray[default]==2.60.0" \
    && useradd --uid 10001 --create-home understudy && install --directory --owner understudy --mode 0700 /data
ENV PATH=$PATH:/opt/ray/bin UNDERSTUDY_HOME=/data HF_HOME=/data/.hub OMP_WAIT_POLICY=PASSIVE RAY_AUTH_MODE=token
USER 10001
ENTRYPOINT ["ray", "start", "--block", "--disable-usage-stats", "--object-store-memory=100000000"]

# vLLM with the plugin that finds versions in the home by name: --target vllm.
FROM ${VLLM} AS vllm
COPY pyproject.toml hatch_build.py LICENSE README.md /opt/understudy/
COPY personas /opt/understudy/personas
RUN python3 -m pip install --no-cache-dir --no-deps /opt/understudy && useradd --uid 10001 --create-home understudy \
    && install --directory --owner understudy --mode 0700 /data /models
ENV UNDERSTUDY_HOME=/data HF_HOME=/models VLLM_ALLOW_RUNTIME_LORA_UPDATING=1
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["vllm", "serve"]

FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
RUN useradd --uid 10001 --create-home understudy && install --directory --owner understudy --mode 0700 /data /backups
ENV PATH=/opt/venv/bin:$PATH UNDERSTUDY_HOME=/data BACKUP_FOLDER=/backups HF_HOME=/data/.hub OMP_WAIT_POLICY=PASSIVE \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001
VOLUME /data /backups
EXPOSE 8420
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8420/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m"]
CMD ["bot"]
